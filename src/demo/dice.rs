//! A small seeded generator, and Zipf's law on top of it.
//!
//! The same seed gives the same data on every machine and in every release, so a test may name a message that was
//! generated. That is why this is thirty lines of integers and not a dependency that may change its stream.

/// A splitmix64 generator: fast, small, and good enough for data that nobody attacks.
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// Dice that always fall the same way for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number from 0 up to and without `bound`; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product is uniform up to a bias of `bound` in 2^64, which nothing here can notice.
        let product = u128::from(self.roll()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// True in `percent` of a hundred rolls.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A position in a list of `length` items; 0 where the list is empty.
    pub fn position(&mut self, length: usize) -> usize {
        let bound = u64::try_from(length).unwrap_or(u64::MAX);
        usize::try_from(self.below(bound)).unwrap_or(0)
    }

    /// One of the options, which must not be empty.
    pub fn one_of<'a, T>(&mut self, options: &'a [T]) -> &'a T {
        &options[self.position(options.len())]
    }

    /// A UUID of version 4, in lower case.
    pub fn uuid(&mut self) -> String {
        let (high, low) = (self.roll(), self.roll());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            ((low >> 48) & 0x3fff) | 0x8000,
            low & 0xffff_ffff_ffff,
        )
    }
}

/// Zipf's law: the one of rank `r` (from 0) is drawn in proportion to `1 / (r + 1)`, as popular things are.
#[derive(Clone, Debug)]
pub struct Zipf {
    /// Running sums of the weights: whole numbers, because floating point may round differently elsewhere.
    sums: Vec<u64>,
}

impl Zipf {
    /// The law over `ranks` ranks. With none, [`Zipf::draw`] answers 0.
    #[must_use]
    pub fn new(ranks: usize) -> Self {
        let mut sum = 0_u64;
        let sums = (1_u64..)
            .take(ranks)
            .map(|place| {
                sum += (1 << 32) / place;
                sum
            })
            .collect();
        Self { sums }
    }

    /// A rank, 0 being the most popular.
    pub fn draw(&self, dice: &mut Dice) -> usize {
        let point = dice.below(self.sums.last().copied().unwrap_or(0));
        self.sums.partition_point(|&sum| sum <= point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_splitmix64() {
        // Reference values of the published algorithm for seed 1234567.
        let mut dice = Dice::new(1_234_567);
        let rolls = [dice.roll(), dice.roll(), dice.roll()];
        assert_eq!(rolls, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn bounds_hold() {
        let mut dice = Dice::new(1);
        assert_eq!(dice.below(0), 0);
        assert!((0..1_000).all(|_| dice.below(7) < 7));
        assert_eq!(Zipf::new(0).draw(&mut dice), 0);
        let zipf = Zipf::new(3);
        assert!((0..1_000).all(|_| zipf.draw(&mut dice) < 3));
    }

    #[test]
    fn popularity_falls_as_zipf_says() {
        let (zipf, mut dice) = (Zipf::new(1_000), Dice::new(42));
        let mut drawn = vec![0_u32; 1_000];
        for _ in 0..200_000 {
            drawn[zipf.draw(&mut dice)] += 1;
        }
        // The harmonic number of 1,000 is 7.485, so the first is drawn 26,720 times in the mean.
        for (rank, expected) in [(0, 26_720), (1, 13_360), (9, 2_672)] {
            let (low, high) = (expected * 9 / 10, expected * 11 / 10);
            assert!((low..=high).contains(&drawn[rank]), "rank {rank} was drawn {} times", drawn[rank]);
        }
    }

    #[test]
    fn uuids_are_of_version_4() {
        let id = Dice::new(9).uuid();
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
    }
}
