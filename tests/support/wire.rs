//! HTTP/1.1 as bytes: heads and bodies read as they were sent, by the scripted upstream and the client alike.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Header fields in the order and the spelling they came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

/// The lines of a head: the first one and the fields, and the bytes they were read from.
#[derive(Clone, Debug)]
pub struct Head {
    pub first: String,
    pub headers: Headers,
    pub raw: Vec<u8>,
}

/// A body, and whether it came to the end that its head promised.
#[derive(Clone, Debug, Default)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub complete: bool,
}

impl Headers {
    /// The first field of that name, whatever its case.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The values of all fields of that name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    fn chunked(&self) -> bool {
        self.first("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().ends_with("chunked"))
    }

    fn content_length(&self) -> Option<usize> {
        self.first("content-length").and_then(|v| v.trim().parse().ok())
    }
}

/// Reads one head. `None` when the peer closed before its first byte.
pub async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Head>> {
    loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            let raw: Vec<u8> = buffer.drain(..end + 4).collect();
            let text = String::from_utf8_lossy(&raw[..end]).into_owned();
            let mut lines = text.split("\r\n");
            let first = lines.next().unwrap_or_default().to_owned();
            let headers = lines.map(field).collect();
            return Ok(Some(Head { first, headers: Headers(headers), raw }));
        }
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() {
                Ok(None)
            } else {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed within a head"))
            };
        }
    }
}

/// Reads the body that `headers` announce; without framing it is empty, or all there is if `until_close`.
pub async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    headers: &Headers,
    until_close: bool,
) -> Body {
    if headers.chunked() {
        return read_chunked(stream, buffer).await;
    }
    match headers.content_length() {
        Some(length) => {
            let complete = fill(stream, buffer, length).await;
            let bytes = buffer.drain(..length.min(buffer.len())).collect();
            Body { bytes, complete }
        }
        None if until_close => {
            let closed_well = loop {
                match stream.read_buf(buffer).await {
                    Ok(0) => break true,
                    Ok(_) => {}
                    Err(_) => break false,
                }
            };
            Body { bytes: std::mem::take(buffer), complete: closed_well }
        }
        None => Body { bytes: Vec::new(), complete: true },
    }
}

async fn read_chunked(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Body {
    let mut bytes = Vec::new();
    loop {
        let Some(line) = read_line(stream, buffer).await else { return Body { bytes, complete: false } };
        let size = line.split(';').next().unwrap_or_default().trim();
        let Ok(size) = usize::from_str_radix(size, 16) else { return Body { bytes, complete: false } };
        if size == 0 {
            // Trailers, up to the empty line.
            loop {
                match read_line(stream, buffer).await {
                    None => return Body { bytes, complete: false },
                    Some(line) if line.is_empty() => return Body { bytes, complete: true },
                    Some(_) => {}
                }
            }
        }
        let whole = fill(stream, buffer, size + 2).await;
        bytes.extend(buffer.drain(..size.min(buffer.len())));
        if !whole {
            return Body { bytes, complete: false };
        }
        buffer.drain(..2);
    }
}

async fn read_line(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = find(buffer, b"\r\n") {
            let line: Vec<u8> = buffer.drain(..end + 2).collect();
            return Some(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

/// Reads until `buffer` holds `length` bytes; false when the peer closed before.
async fn fill(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>, length: usize) -> bool {
    while buffer.len() < length {
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return false;
        }
    }
    true
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_owned(), value.trim().to_owned())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
