//! A short text put together on the stack, for header values that are new for every answer: formatting one takes no
//! allocation, and keeping it takes one of just its size.

use http::header::HeaderValue;

/// At most `N` bytes of ASCII; a piece that does not fit is left out.
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
    // Inlined, so that a text of known length is written in place and not copied by a call.
    #[inline]
    pub fn push(&mut self, text: &str) {
        if let Some(room) = self.room(text.len()) {
            room.copy_from_slice(text.as_bytes());
        }
    }

    /// Adds `number` in decimal, with zeros in front up to `width` digits.
    pub fn push_decimal(&mut self, mut number: u64, width: usize) {
        let digits = number.checked_ilog10().map_or(1, |log| log as usize + 1);
        for digit in self.room(digits.max(width)).into_iter().flatten().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }

    /// Adds `number` in hexadecimal, with zeros in front up to `width` digits, sixteen at most.
    pub fn push_hex(&mut self, number: u64, width: usize) {
        let digits = (u64::BITS - number.leading_zeros()).div_ceil(4) as usize;
        let digits = digits.max(width).clamp(1, 16);
        let mut all = [0; 16];
        all[..8].copy_from_slice(&hex(number >> 32));
        all[8..].copy_from_slice(&hex(number));
        if let Some(room) = self.room(digits) {
            room.copy_from_slice(&all[16 - digits..]);
        }
    }

    /// Adds what `other` holds.
    #[inline]
    pub fn push_short<const M: usize>(&mut self, other: &Short<M>) {
        if let Some(room) = self.room(other.len) {
            room.copy_from_slice(other.as_bytes());
        }
    }

    /// The bytes so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// A header value of it, or `otherwise` if it is none.
    pub fn into_value(self, otherwise: &'static str) -> HeaderValue {
        HeaderValue::from_bytes(self.as_bytes()).unwrap_or(HeaderValue::from_static(otherwise))
    }

    /// The next `bytes` bytes, now taken, if there are so many.
    #[inline]
    fn room(&mut self, bytes: usize) -> Option<&mut [u8]> {
        let room = self.bytes[self.len..].get_mut(..bytes)?;
        self.len += bytes;
        Some(room)
    }
}

/// The last eight hexadecimal digits of `number`, all at once: each half byte is spread to a byte of its own.
fn hex(number: u64) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let spread = number & 0xffff_ffff;
    let spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    let spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    let spread = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // One where the digit is a letter: those stand further up than the tenth digit would.
    let letters = ((spread + 6 * ONES) >> 4) & ONES;
    (spread + u64::from(b'0') * ONES + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
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
        fn what_does_not_fit_is_left_out(text in "[a-z]{0,20}", number: u32) {
            let mut short = Short::<8>::new();
            short.push(&text);
            short.push_decimal(number.into(), 1);
            let mut expected = String::new();
            for piece in [text, number.to_string()] {
                expected += if expected.len() + piece.len() <= 8 { &piece } else { "" };
            }
            prop_assert_eq!(short.as_bytes(), expected.as_bytes());
        }
    }
}
