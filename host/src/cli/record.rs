//! Lines of input as messages to write. Not here: where lines come from and go to (`produce.rs`).

use std::io::{BufRead, Read};

use serde_json::Value;

use super::error::Error;
use crate::admin::wire::{Blob, Header, Record};
use crate::expression::{Expression, nearest};
use crate::message::{HeadersBuf, MessageRef};

/// How a line becomes a message.
pub(super) struct Shape {
    json_lines: bool,
    key: Option<Vec<u8>>,
    key_expression: Option<Expression>,
    headers: Vec<Header>,
    partition: Option<u32>,
}

/// Reads messages line by line.
pub(super) struct Reader<R> {
    input: R,
    shape: Shape,
    line: Vec<u8>,
    line_number: u64,
    bytes_read: u64,
}

impl Shape {
    pub(super) fn new(
        json_lines: bool,
        key: Option<String>,
        key_expression: Option<&str>,
        headers: Vec<(String, String)>,
        partition: Option<u32>,
    ) -> Result<Self, Error> {
        let key_expression = key_expression
            .map(|source| {
                Expression::parse(source).map_err(|why| {
                    Error::usage(
                        format!("--key-expression: {why}"),
                        "write it as in the YAML, for example message.json.order_id",
                    )
                })
            })
            .transpose()?;
        Ok(Self {
            json_lines,
            key: key.map(String::into_bytes),
            key_expression,
            headers: headers
                .into_iter()
                .map(|(name, value)| Header {
                    name,
                    value: Some(Blob(value.into_bytes())),
                })
                .collect(),
            partition,
        })
    }

    /// The message of one line; `Err` says what is wrong with it.
    pub(super) fn record(&self, line: &[u8]) -> Result<Record, String> {
        let mut record = if self.json_lines {
            of_json(line)?
        } else {
            Record {
                payload: Some(Blob(line.to_vec())),
                ..Record::default()
            }
        };
        if let Some(key) = &self.key {
            record.key = Some(Blob(key.clone()));
        }
        record.headers.extend(self.headers.iter().cloned());
        record.partition = self.partition.or(record.partition);
        if let Some(expression) = &self.key_expression {
            record.key = Some(Blob(key_of(expression, &record)?));
        }
        Ok(record)
    }
}

impl<R: BufRead> Reader<R> {
    pub(super) const fn new(input: R, shape: Shape) -> Self {
        Self {
            input,
            shape,
            line: Vec::new(),
            line_number: 0,
            bytes_read: 0,
        }
    }

    /// Bytes taken from the input so far.
    #[must_use]
    pub(super) const fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// The next message and the bytes of its line; `None` at the end.
    pub(super) fn next(&mut self, line_bytes_max: usize) -> Result<Option<(Record, usize)>, Error> {
        loop {
            self.line.clear();
            let limit = u64::try_from(line_bytes_max).unwrap_or(u64::MAX);
            let len = (&mut self.input)
                .take(limit.saturating_add(1))
                .read_until(b'\n', &mut self.line)
                .map_err(|why| Error::failed(format!("cannot read the input: {why}"), ""))?;
            if len == 0 {
                return Ok(None);
            }
            self.line_number += 1;
            self.bytes_read += len as u64;
            let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
            if line.len() > line_bytes_max {
                return Err(self.refused(&format!("longer than {line_bytes_max} bytes")));
            }
            if self.shape.json_lines && line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return match self.shape.record(line) {
                Ok(record) => Ok(Some((record, len))),
                Err(why) => Err(self.refused(&why)),
            };
        }
    }

    fn refused(&self, why: &str) -> Error {
        Error::failed(format!("line {} of the input: {why}", self.line_number), "")
    }
}

fn key_of(expression: &Expression, record: &Record) -> Result<Vec<u8>, String> {
    let mut headers = HeadersBuf::new();
    for header in &record.headers {
        if !headers.push(
            &header.name,
            header.value.as_ref().map(|value| value.0.as_slice()),
        ) {
            return Err(format!("the header {} is too large", header.name));
        }
    }
    let message = MessageRef {
        key: record.key.as_ref().map(|key| key.0.as_slice()),
        payload: record.payload.as_ref().map(|payload| payload.0.as_slice()),
        headers: headers.as_headers(),
        timestamp_ms: record.timestamp_ms.unwrap_or_default(),
    };
    expression
        .evaluate_text(&message)
        .map(String::into_bytes)
        .map_err(|why| format!("the key {}: {why}", expression.source()))
}

fn of_json(line: &[u8]) -> Result<Record, String> {
    let value: Value = serde_json::from_slice(line).map_err(|why| format!("not JSON: {why}"))?;
    let Value::Object(fields) = value else {
        return Err("not a JSON object with key, payload and headers".to_owned());
    };
    let mut record = Record::default();
    for (name, value) in fields {
        match name.as_str() {
            "key" => record.key = bytes(value)?,
            "payload" => record.payload = bytes(value)?,
            "headers" => record.headers = headers(value)?,
            "timestamp_ms" => {
                record.timestamp_ms =
                    Some(value.as_i64().ok_or("timestamp_ms is no whole number")?);
            }
            "partition" => {
                let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
                record.partition = Some(number.ok_or("partition is no number of a partition")?);
            }
            // What `consume --format json` shows besides.
            "topic" | "offset" => {}
            other => {
                let known = ["key", "payload", "headers", "timestamp_ms", "partition"];
                let hint = nearest(other, known.into_iter())
                    .map(|name| format!("; did you mean {name:?}?"))
                    .unwrap_or_default();
                return Err(format!("unknown field {other:?}{hint}"));
            }
        }
    }
    Ok(record)
}

/// `null` is absent, a string its text, `{"base64": "…"}` those bytes, anything else its JSON text.
fn bytes(value: Value) -> Result<Option<Blob>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(Blob(text.into_bytes()))),
        Value::Object(ref fields) if fields.len() == 1 && fields.contains_key("base64") => {
            serde_json::from_value(value)
                .map(Some)
                .map_err(|why| why.to_string())
        }
        other => Ok(Some(Blob(other.to_string().into_bytes()))),
    }
}

/// An object of names and values, or a list of `{name, value}`.
fn headers(value: Value) -> Result<Vec<Header>, String> {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| {
                Ok(Header {
                    name,
                    value: bytes(value)?,
                })
            })
            .collect(),
        list => serde_json::from_value(list).map_err(|why| format!("headers: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(json_lines: bool) -> Shape {
        Shape::new(json_lines, None, None, Vec::new(), None).unwrap()
    }

    fn all(input: &str, shape: Shape) -> Result<Vec<Record>, String> {
        let mut reader = Reader::new(input.as_bytes(), shape);
        let mut records = Vec::new();
        while let Some((record, _)) = reader.next(64).map_err(|why| why.to_string())? {
            records.push(record);
        }
        Ok(records)
    }

    fn payload(record: &Record) -> &[u8] {
        &record.payload.as_ref().unwrap().0
    }

    #[test]
    fn every_line_is_a_payload_and_an_empty_one_too() {
        let records = all("a\n\nb", shape(false)).unwrap();
        let payloads: Vec<&[u8]> = records.iter().map(payload).collect();
        assert_eq!(payloads, [&b"a"[..], b"", b"b"]);
        assert!(all("", shape(false)).unwrap().is_empty());
    }

    #[test]
    fn a_json_line_carries_key_payload_headers_time_and_partition() {
        let line = r#"{"key":"k","payload":{"x":1},"headers":{"a":"b","n":null},"timestamp_ms":5,"partition":2}"#;
        let (record, _) = Reader::new(line.as_bytes(), shape(true))
            .next(4_096)
            .unwrap()
            .unwrap();
        assert_eq!(payload(&record), br#"{"x":1}"#);
        assert_eq!(record.key, Some(Blob(b"k".to_vec())));
        assert_eq!(record.headers.len(), 2);
        assert_eq!(record.headers[1].value, None);
        assert_eq!((record.timestamp_ms, record.partition), (Some(5), Some(2)));
    }

    #[test]
    fn what_consume_shows_as_json_can_be_produced_again() {
        let message = crate::admin::wire::Message {
            topic: "t".into(),
            partition: 1,
            offset: 7,
            timestamp_ms: 9,
            key: Some(Blob(vec![0xff])),
            payload: None,
            headers: vec![Header {
                name: "h".into(),
                value: Some(Blob(vec![0xfe])),
            }],
        };
        let line = serde_json::to_string(&message).unwrap();
        let mut reader = Reader::new(line.as_bytes(), shape(true));
        let (record, _) = reader.next(4_096).unwrap().unwrap();
        assert_eq!(record.key, message.key);
        assert_eq!(record.payload, None);
        assert_eq!(record.headers, message.headers);
        assert_eq!(record.timestamp_ms, Some(9));
    }

    #[test]
    fn a_bad_line_is_named_by_its_number_and_what_is_wrong() {
        let why = all("{\"payload\":1}\n{\"pay\":1}", shape(true)).unwrap_err();
        assert!(why.contains("line 2") && why.contains("payload"), "{why}");
        assert!(all("[1]", shape(true)).unwrap_err().contains("line 1"));
    }

    #[test]
    fn a_line_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
        assert!(all(&"x".repeat(64), shape(false)).is_ok());
        assert!(all(&format!("{}\n", "x".repeat(64)), shape(false)).is_ok());
        assert!(
            all(&"x".repeat(65), shape(false))
                .unwrap_err()
                .contains("longer")
        );
    }

    #[test]
    fn options_add_to_what_the_line_says() {
        let shape = Shape::new(
            true,
            Some("fixed".into()),
            None,
            vec![("h".into(), "v".into())],
            Some(4),
        )
        .unwrap();
        let records = all(r#"{"key":"own","headers":{"a":"b"}}"#, shape).unwrap();
        assert_eq!(records[0].key, Some(Blob(b"fixed".to_vec())));
        assert_eq!(records[0].headers.len(), 2);
        assert_eq!(records[0].partition, Some(4));
    }
}
