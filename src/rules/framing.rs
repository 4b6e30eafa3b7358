//! Where requests begin and end in a connection's bytes (RFC 9112 §2.1, §6): read beside hyper, to refuse what hyper
//! takes without a word. hyper drops one of two framing fields and accepts bare line feeds before anybody can see
//! them; a server in front of the gate may have read such a request otherwise.
//!
//! What hyper refuses itself needs no judgement here: after it nothing more is read.

/// The longest line whose beginning is kept while its end has not arrived: enough for every name that matters here.
const KEPT: usize = 128;
/// Lengths from here on are refused: no body is so long, and they overflow in careless hands.
const ABSURD_LENGTH: u64 = 1 << 62;

/// How far a connection's requests have been read. Feed it every byte that arrives, in order.
#[derive(Debug, Default)]
pub struct Framing {
    at: At,
    head: Head,
}

/// A request that must not be read on: the bytes before this place may be passed, none after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// How many of the bytes may be passed.
    pub before: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Between two requests.
    #[default]
    Between,
    /// Within a head.
    Head,
    /// Within a body, with so many bytes left.
    Body(u64),
    /// Within a chunked body.
    Chunked(Chunk, u64),
    /// Past something that hyper refuses.
    Lost,
}

/// Where in a chunked body (RFC 9112 §7.1), the number beside it being the chunk's size or what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size,
    Extension,
    SizeEnd,
    Bytes,
    BytesCr,
    BytesLf,
    /// At the beginning of a trailer line.
    Trailer,
    TrailerLine,
    TrailerLf,
    LastLf,
}

/// What is known of the head that is being read.
#[derive(Debug, Default)]
struct Head {
    /// The beginning of a line whose end has not arrived, and that line's last byte.
    line: Vec<u8>,
    last: u8,
    is_cut: bool,
    has_request_line: bool,
    /// Whether the request line has a `#`, however much of it is kept.
    is_marked: bool,
    length: Option<u64>,
    coded: bool,
}

impl Framing {
    /// Whether a request has begun whose head is not complete.
    pub fn is_within_head(&self) -> bool {
        self.at == At::Head
    }

    /// Whether everything so far was whole requests.
    pub fn is_between(&self) -> bool {
        self.at == At::Between
    }

    /// Reads on.
    ///
    /// # Errors
    /// From where on nothing may be passed to anybody.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut rest = bytes;
        while let [first, after @ ..] = rest {
            match self.at {
                // "A server that is expecting to receive and parse a request-line SHOULD ignore at least one empty line
                // (CRLF) received prior to the request-line" (RFC 9112 §2.2).
                At::Between if matches!(first, b'\r' | b'\n') => rest = after,
                At::Between => {
                    self.head = Head { line: std::mem::take(&mut self.head.line), ..Head::default() };
                    self.head.line.clear();
                    self.at = At::Head;
                }
                At::Head => {
                    let Some(end) = memchr::memchr(b'\n', rest) else {
                        self.head.keep(rest);
                        return Ok(());
                    };
                    let (line, after) = rest.split_at(end);
                    match self.head.take(line) {
                        Line::More => {}
                        Line::End => self.at = self.head.body(),
                        Line::Refused => return Err(Refused { before: bytes.len() - rest.len() + end }),
                    }
                    rest = after.get(1..).unwrap_or_default();
                }
                At::Body(left) => {
                    let here = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                    rest = rest.get(here..).unwrap_or_default();
                    let left = left - here as u64;
                    self.at = if left == 0 { At::Between } else { At::Body(left) };
                }
                At::Chunked(Chunk::Bytes, left) => {
                    let here = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                    rest = rest.get(here..).unwrap_or_default();
                    let left = left - here as u64;
                    let chunk = if left == 0 { Chunk::BytesCr } else { Chunk::Bytes };
                    self.at = At::Chunked(chunk, left);
                }
                // A line of trailers that ends in a bare line feed is still open to hyper, and over to others.
                At::Chunked(Chunk::Trailer | Chunk::TrailerLine, _) if *first == b'\n' => {
                    return Err(Refused { before: bytes.len() - rest.len() });
                }
                At::Chunked(chunk, size) => {
                    self.at = chunk.step(*first, size);
                    rest = after;
                }
                At::Lost => return Ok(()),
            }
        }
        Ok(())
    }
}

enum Line {
    More,
    End,
    Refused,
}

impl Head {
    /// Keeps what matters of a line whose end has not arrived.
    fn keep(&mut self, part: &[u8]) {
        let room = KEPT.saturating_sub(self.line.len());
        self.is_cut |= part.len() > room;
        self.is_marked |= !self.has_request_line && memchr::memchr(b'#', part).is_some();
        self.line.extend_from_slice(part.get(..room).unwrap_or(part));
        self.last = part.last().copied().unwrap_or(self.last);
    }

    /// Takes a line without its line feed.
    fn take(&mut self, end: &[u8]) -> Line {
        if self.line.is_empty() {
            return self.judge(end);
        }
        self.keep(end);
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.is_cut) {
            line.push(self.last);
        }
        let judged = self.judge(&line);
        line.clear();
        self.line = line;
        judged
    }

    fn judge(&mut self, line: &[u8]) -> Line {
        // "a recipient MAY recognize a single LF as a line terminator" (RFC 9112 §2.2): it may, and whoever stands
        // before it may not have.
        let Some((b'\r', line)) = line.split_last() else { return Line::Refused };
        if !std::mem::replace(&mut self.has_request_line, true) {
            // No form of a target has a fragment (RFC 9112 §3.2); hyper cuts it off without a word.
            let has_fragment = self.is_marked || memchr::memchr(b'#', line).is_some();
            return if has_fragment { Line::Refused } else { Line::More };
        }
        let Some(first) = line.first() else { return Line::End };
        match first {
            b'c' | b'C' => {
                if let Some(value) = value_of(line, b"content-length") {
                    // So far from its name that it may have been cut off above: no length is written so.
                    if line.len() >= KEPT {
                        return Line::Refused;
                    }
                    // hyper refuses what is no number, and two that differ.
                    self.length =
                        Some(std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()).unwrap_or(0));
                }
            }
            b't' | b'T' => self.coded |= value_of(line, b"transfer-encoding").is_some(),
            _ => {}
        }
        // "A server MAY reject a request that contains both Content-Length and Transfer-Encoding" (RFC 9112 §6.1).
        let both = self.coded && self.length.is_some();
        let absurd = self.length.is_some_and(|length| length >= ABSURD_LENGTH);
        if both || absurd { Line::Refused } else { Line::More }
    }

    /// What follows the head (RFC 9112 §6.3).
    fn body(&self) -> At {
        match (self.coded, self.length) {
            (true, _) => At::Chunked(Chunk::Size, 0),
            (false, None | Some(0)) => At::Between,
            (false, Some(length)) => At::Body(length),
        }
    }
}

/// The value of a field line, if it has this name. A space before the colon is hyper's to refuse.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":").filter(|_| found.eq_ignore_ascii_case(name))?;
    Some(value.trim_ascii())
}

impl Chunk {
    fn step(self, byte: u8, size: u64) -> At {
        let next = match (self, byte) {
            (Self::Size | Self::Extension, b'\r') => Self::SizeEnd,
            (Self::Size, b';' | b' ' | b'\t') => Self::Extension,
            (Self::Size, digit) => {
                let digit = char::from(digit).to_digit(16);
                let size = digit.and_then(|digit| size.checked_mul(16)?.checked_add(u64::from(digit)));
                return size.map_or(At::Lost, |size| At::Chunked(Self::Size, size));
            }
            (Self::SizeEnd, b'\n') if size == 0 => Self::Trailer,
            (Self::SizeEnd, b'\n') => Self::Bytes,
            (Self::BytesCr, b'\r') => Self::BytesLf,
            (Self::BytesLf, b'\n') => return At::Chunked(Self::Size, 0),
            (Self::Trailer, b'\r') => Self::LastLf,
            (Self::TrailerLine, b'\r') => Self::TrailerLf,
            (Self::TrailerLf, b'\n') => Self::Trailer,
            (Self::LastLf, b'\n') => return At::Between,
            (Self::Trailer | Self::TrailerLine, _) => Self::TrailerLine,
            (Self::Extension, _) => Self::Extension,
            _ => return At::Lost,
        };
        At::Chunked(next, size)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUESTS: &str = "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\
        POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\n\n\n\n\
        POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n\n\n\r\n0\r\nX: 1\r\n\r\n\
        GET / HTTP/1.1\r\nX-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n";

    #[test]
    fn what_hyper_takes_without_a_word_is_refused() {
        for (head, passes) in [
            ("A\r\nB: 1\r\n\r\n", true),
            ("A\nB: 1\r\n\r\n", false),
            ("A\r\nB: 1\n\r\n", false),
            ("A\r\nB: 1\r\n\n", false),
            ("A\n\n", false),
            ("A\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("A\r\ntransfer-encoding: chunked\r\nCONTENT-LENGTH: 1\r\n\r\n", false),
            ("A\r\nTransfer-Encoding: chunked\r\nContent-Lengths: 1\r\n\r\n", true),
            ("A\r\nContent-Length: 4611686018427387904\r\n\r\n", false),
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", true),
            ("GET /a#b HTTP/1.1\r\nB: 1\r\n\r\n", false),
            ("GET /a HTTP/1.1\r\nB: #\r\n\r\n", true),
            (&format!("GET /{}#b HTTP/1.1\r\n\r\n", "a".repeat(2 * KEPT)), false),
            ("A\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\r\n\r\n", true),
            ("A\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\n\r\n", false),
            ("A\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n", false),
        ] {
            let mut whole = Framing::default();
            assert_eq!(whole.read(head.as_bytes()).is_ok(), passes, "{head:?}");
            let mut pieces = Framing::default();
            let read = head.bytes().try_for_each(|byte| pieces.read(&[byte]));
            assert_eq!(read.is_ok(), passes, "{head:?} byte by byte");
        }
    }

    #[test]
    fn a_refusal_leaves_what_came_before_it() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /\n";
        assert_eq!(Framing::default().read(head.as_bytes()), Err(Refused { before: head.len() - 1 }));
    }

    proptest! {
        #[test]
        fn requests_end_where_they_end_however_they_arrive(cuts in prop::collection::vec(0..REQUESTS.len(), 0..20)) {
            let mut cuts = cuts;
            cuts.extend([0, REQUESTS.len()]);
            cuts.sort_unstable();
            let mut framing = Framing::default();
            for pair in cuts.windows(2) {
                let piece = REQUESTS.as_bytes().get(pair[0]..pair[1]).unwrap_or_default();
                prop_assert_eq!(framing.read(piece), Ok(()));
            }
            prop_assert!(framing.is_between());
        }

        #[test]
        fn any_bytes_are_read(bytes in any::<Vec<u8>>()) {
            let mut framing = Framing::default();
            if let Err(refused) = framing.read(&bytes) {
                prop_assert!(refused.before < bytes.len());
            }
        }
    }
}
