//! As much of wit/FRAME.md as this handler needs. The host wrote the batch, so it is not checked.

pub struct Message<'a> {
    pub payload: Option<&'a [u8]>,
    pub correlation_id: &'a [u8],
}

/// The answer to a reserve frame: a head of kind 1 and count 0.
pub fn answer_to_reserve(frame: &[u8]) -> Option<Vec<u8>> {
    (half(frame, 2) == 1).then(|| vec![1, 0, 1, 0, 0, 0, 0, 0])
}

pub fn messages(frame: &[u8]) -> Vec<Message<'_>> {
    let mut at = 10;
    for _ in 0..half(frame, 8) {
        at += 2 + half(frame, at);
    }
    let mut messages = Vec::new();
    for _ in 0..word(frame, 4) {
        messages.push(message(&frame[at..]));
        at += word(frame, at);
    }
    messages
}

fn message(bytes: &[u8]) -> Message<'_> {
    let present = |at| Some(word(bytes, at)).filter(|len| *len != u32::MAX as usize);
    let (key, payload) = (present(32), present(36));
    let payload_at = 48 + key.unwrap_or(0);
    let id_at = payload_at + payload.unwrap_or(0) + word(bytes, 40);
    Message {
        payload: payload.map(|len| &bytes[payload_at..payload_at + len]),
        correlation_id: &bytes[id_at..id_at + half(bytes, 44)],
    }
}

/// An outcome frame being written.
pub struct Reply {
    bytes: Vec<u8>,
    results: u32,
}

impl Reply {
    pub fn new() -> Self {
        Self {
            bytes: vec![1, 0, 0, 0, 0, 0, 0, 0],
            results: 0,
        }
    }

    /// The message itself, to `default`.
    pub fn echo(&mut self) {
        self.success(1, &output(0, b""));
    }

    /// `payload`, to `default`.
    pub fn output(&mut self, payload: &[u8]) {
        self.success(1, &output(2, payload));
    }

    pub fn many_outputs(&mut self, count: u32) {
        let output = output(0, b"");
        let len = output.len() * count as usize;
        self.results += 1;
        self.bytes.reserve_exact(12 + len);
        self.bytes.extend([0; 4]);
        self.bytes.extend((len as u32).to_le_bytes());
        self.bytes.extend(count.to_le_bytes());
        for _ in 0..count {
            self.bytes.extend_from_slice(&output);
        }
    }

    pub fn silence(&mut self) {
        self.success(0, &[]);
    }

    pub fn failure(&mut self, status: u8, reason: &str) {
        let body = [&u64::MAX.to_le_bytes()[..], reason.as_bytes()].concat();
        self.result(status, 0, &body);
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.bytes[4..8].copy_from_slice(&self.results.to_le_bytes());
        self.bytes
    }

    fn success(&mut self, outputs: u32, body: &[u8]) {
        self.result(0, outputs, body);
    }

    fn result(&mut self, status: u8, outputs: u32, body: &[u8]) {
        self.results += 1;
        self.bytes.extend([status, 0, 0, 0]);
        self.bytes.extend((body.len() as u32).to_le_bytes());
        self.bytes.extend(outputs.to_le_bytes());
        self.bytes.extend_from_slice(body);
    }
}

/// An output to `default` with the input's key; the payload is 0 the input's, 2 the one given.
fn output(payload_kind: u8, payload: &[u8]) -> Vec<u8> {
    let name = b"default";
    let mut bytes = Vec::with_capacity(24 + name.len() + payload.len());
    bytes.extend(((24 + name.len() + payload.len()) as u32).to_le_bytes());
    bytes.extend([0, payload_kind]);
    bytes.extend((name.len() as u16).to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(payload);
    bytes
}

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}

fn half(bytes: &[u8], at: usize) -> usize {
    u16::from_le_bytes([bytes[at], bytes[at + 1]]).into()
}
