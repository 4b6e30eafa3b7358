//! How a collection's windows are counted: which items a window covers, and which aligned blocks hold them.

use std::ops::Range;

use crate::model::exchange::Window;

/// What the parameter beside the size counts. It is the same towards clients and towards the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counting {
    /// Pages, of which the first bears this number.
    Pages {
        /// 1, or 0.
        first: u64,
    },
    /// Items before the window; [`Window::page`] holds them.
    Items,
}

impl Default for Counting {
    fn default() -> Self {
        Self::Pages { first: 1 }
    }
}

impl Counting {
    /// The places of the items that `window` covers, counted from 0. `None` for a window of nothing, and for a page
    /// before the first: what an upstream makes of those is its own affair.
    pub fn span(self, window: Window) -> Option<Range<u64>> {
        let start = match self {
            Self::Pages { first } => window.page.checked_sub(first)?.saturating_mul(window.size),
            Self::Items => window.page,
        };
        (window.size > 0).then(|| start..start.saturating_add(window.size))
    }

    /// How `size` items behind the first `before` are asked for; where pages are counted, `before` is a multiple of `size`.
    pub fn window(self, before: u64, size: u64) -> Window {
        let page = match self {
            Self::Pages { first } => before.checked_div(size).unwrap_or(0).saturating_add(first),
            Self::Items => before,
        };
        Window { page, size }
    }

    /// The window that begins where `window` ends.
    pub fn next(self, window: Window) -> Window {
        let step = if self == Self::Items { window.size } else { 1 };
        Window { page: window.page.saturating_add(step), ..window }
    }

    /// The window that ends where `window` begins; `None` for the first.
    pub fn prev(self, window: Window) -> Option<Window> {
        let page = match self {
            Self::Pages { first } => window.page.checked_sub(1).filter(|page| *page >= first)?,
            Self::Items => (window.page > 0).then(|| window.page.saturating_sub(window.size))?,
        };
        Some(Window { page, ..window })
    }

    /// The first window of this size.
    pub fn first(self, size: u64) -> Window {
        self.window(0, size)
    }

    /// The last window of this size that holds any of `total` items; the first if there are none.
    pub fn last(self, size: u64, total: u64) -> Window {
        let before = total.saturating_sub(1).checked_div(size).unwrap_or(0).saturating_mul(size);
        self.window(before, size)
    }
}

/// The aligned blocks of `size` items that hold `items`, counted from 0.
pub fn blocks(items: &Range<u64>, size: u64) -> Range<u64> {
    let size = size.max(1);
    items.start / size..items.end.div_ceil(size)
}

/// How many windows of `size` hold `total` items.
pub fn pages(size: u64, total: u64) -> u64 {
    total.div_ceil(size.max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: Counting = Counting::Pages { first: 1 };
    const ZERO: Counting = Counting::Pages { first: 0 };

    #[test]
    fn windows_cover_items() {
        let window = |page, size| Window { page, size };
        for (counting, page, size, span) in [
            (ONE, 1, 20, Some(0..20)),
            (ONE, 3, 20, Some(40..60)),
            (ONE, 0, 20, None),
            (ONE, 1, 0, None),
            (ZERO, 0, 20, Some(0..20)),
            (ZERO, 2, 20, Some(40..60)),
            (Counting::Items, 0, 20, Some(0..20)),
            (Counting::Items, 7, 20, Some(7..27)),
            (ONE, u64::MAX, u64::MAX, Some(u64::MAX..u64::MAX)),
        ] {
            assert_eq!(counting.span(window(page, size)), span, "{counting:?} {page} {size}");
        }
        assert_eq!(blocks(&(40..60), 50), 0..2);
        assert_eq!(blocks(&(50..100), 50), 1..2);
        assert_eq!(blocks(&(0..u64::MAX), 1), 0..u64::MAX);
        assert_eq!(ONE.last(20, 41), window(3, 20));
        assert_eq!(ZERO.last(20, 40), window(1, 20));
        assert_eq!(Counting::Items.last(20, 41), window(40, 20));
        assert_eq!(ONE.last(20, 0), window(1, 20));
        assert_eq!(Counting::Items.prev(window(7, 20)), Some(window(0, 20)));
        assert_eq!((ONE.prev(window(1, 20)), ZERO.prev(window(0, 20))), (None, None));
    }

    proptest! {
        /// A window and its items say the same, neighbours touch, and blocks cover exactly what they must. Nothing
        /// overflows, whatever a client writes.
        #[test]
        fn windows_and_items_agree(page: u64, size: u64, block: u64, first in 0u64..2, items: bool) {
            let counting = if items { Counting::Items } else { Counting::Pages { first } };
            let window = Window { page, size };
            let (next, prev) = (counting.next(window), counting.prev(window));
            if let Some(span) = counting.span(window) {
                if span.end < u64::MAX {
                    prop_assert_eq!(counting.window(span.start, size), window);
                    prop_assert_eq!(counting.span(next).map(|next| next.start), Some(span.end));
                }
                if let Some(before) = prev.and_then(|prev| counting.span(prev)) {
                    prop_assert!(before.start <= span.start);
                }
                let blocks = blocks(&span, block);
                prop_assert!(blocks.start.saturating_mul(block.max(1)) <= span.start);
                prop_assert!(blocks.end.saturating_mul(block.max(1)) >= span.end);
            }
        }
    }
}
