//! A short text put together on the stack, for header values that are new for every answer: formatting one takes no
//! allocation, and keeping it takes one of just its size.

use http::header::HeaderValue;

/// At most `N` bytes of ASCII; what does not fit is left out.
#[derive(Debug, Clone)]
pub struct Short<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Short<N> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    /// Adds `text`.
    pub fn push(&mut self, text: &str) {
        self.extend(text.as_bytes());
    }

    /// Adds `number` in decimal, with zeros in front up to `width` digits.
    pub fn push_decimal(&mut self, mut number: u64, width: usize) {
        let mut digits = [b'0'; 20];
        let mut at = digits.len();
        while number > 0 || at > digits.len() - width.clamp(1, digits.len()) {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.extend(&digits[at..]);
    }

    /// Adds `number` in hexadecimal, with zeros in front up to `width` digits.
    pub fn push_hex(&mut self, mut number: u64, width: usize) {
        let mut digits = [b'0'; 16];
        let mut at = digits.len();
        while number > 0 || at > digits.len() - width.clamp(1, digits.len()) {
            at -= 1;
            digits[at] = b"0123456789abcdef"[(number & 15) as usize];
            number >>= 4;
        }
        self.extend(&digits[at..]);
    }

    /// The bytes so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// A header value of it, or `otherwise` if it is none.
    pub fn into_value(self, otherwise: &'static str) -> HeaderValue {
        HeaderValue::from_bytes(self.as_bytes()).unwrap_or(HeaderValue::from_static(otherwise))
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = N - self.len;
        let fitting = &bytes[..bytes.len().min(room)];
        self.bytes[self.len..self.len + fitting.len()].copy_from_slice(fitting);
        self.len += fitting.len();
    }
}

impl<const N: usize> Default for Short<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> std::fmt::Write for Short<N> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_reads_as_format_would_write_it(number in any::<u64>(), width in 0usize..20) {
            let mut short = Short::<64>::new();
            short.push_decimal(number, width);
            short.push(";");
            short.push_hex(number, width.min(16));
            let hex = width.min(16);
            let written = format!("{number:0width$};{number:0hex$x}");
            prop_assert_eq!(short.as_bytes(), written.as_bytes());
            prop_assert_eq!(short.into_value("-"), written.as_str());
        }

        #[test]
        fn what_does_not_fit_is_left_out(text in "[a-z]{0,20}") {
            let mut short = Short::<8>::new();
            short.push(&text);
            prop_assert_eq!(short.as_bytes(), &text.as_bytes()[..text.len().min(8)]);
        }
    }
}
