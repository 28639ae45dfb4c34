//! The outputs of a message as they stand in its idempotency record, to be published again for a
//! duplicate: `name_len u16 | name | record` (records carry their own size). Pure.

use crate::message::MessageRef;

pub(super) fn push(stored: &mut Vec<u8>, name: &str, record: &MessageRef<'_>) {
    // Output names are at most 64 bytes (config).
    stored.extend_from_slice(&(name.len() as u16).to_le_bytes());
    stored.extend_from_slice(name.as_bytes());
    record.write_record(stored);
}

/// Name and record of each, in order; stops at the first that is damaged.
pub(super) fn iter(mut stored: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    std::iter::from_fn(move || {
        let (len, rest) = stored.split_first_chunk::<2>()?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
        let (_, after) = MessageRef::read_record(rest).ok()?;
        let record = rest.get(..rest.len() - after.len())?;
        stored = after;
        Some((std::str::from_utf8(name).ok()?, record))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_outputs_read_back_in_order() {
        let mut stored = Vec::new();
        let payloads = [[0u8], [1], [2]];
        let records = payloads.each_ref().map(|payload| MessageRef {
            payload: Some(payload),
            ..Default::default()
        });
        for (name, record) in ["a", "bb", ""].iter().zip(&records) {
            push(&mut stored, name, record);
        }
        let back: Vec<_> = iter(&stored).collect();
        assert_eq!(back.len(), 3);
        assert!(
            back.iter()
                .zip(["a", "bb", ""])
                .zip(&records)
                .all(|((b, name), record)| {
                    b.0 == name && MessageRef::read_record(b.1) == Ok((*record, &[][..]))
                })
        );
    }
}
