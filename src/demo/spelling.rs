//! How a service writes a question: the same question, as its programmers happened to spell it.

use super::conversations::Contact;
use super::dice::Dice;

/// What a service wants to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whose messages; everybody's without one.
    pub filter: Option<Filter>,
    /// The page, from 1.
    pub page: usize,
    /// The page's size.
    pub size: usize,
}

/// Whose messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Those of a phone number: `+` and digits.
    Phone(String),
    /// Those of the contact with this address.
    Email(String),
    /// Those on Facebook with this ID, without its prefix.
    Facebook(String),
    /// Those of a conversation, by its UUID without the prefix.
    Conversation(String),
}

impl Filter {
    /// One way to ask about a contact: mostly the phone number, as that is what everybody has at hand.
    pub fn about(contact: &Contact, dice: &mut Dice) -> Option<Self> {
        let way = dice.below(100);
        let email = contact.email.clone().filter(|_| contact.phone.is_some()).map(Self::Email);
        let facebook = contact.facebook.clone().map(Self::Facebook);
        let conversation = contact.conversations.first().cloned().map(Self::Conversation);
        let rare = match way {
            0..70 => None,
            70..82 => email,
            82..90 => facebook,
            _ => conversation.clone(),
        };
        rare.or_else(|| contact.phone.clone().map(Self::Phone)).or(conversation)
    }
}

/// How names are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// `per_page`
    #[default]
    Exact,
    /// `perPage`
    Camel,
    /// `per-page`
    Kebab,
    /// `PER_PAGE`
    Upper,
}

/// How phone numbers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phones {
    /// `%2B33639980123`
    #[default]
    Escaped,
    /// `+33639980123`, where the `+` arrives as a space.
    RawPlus,
    /// `%2B33+6+39+98+01+23`
    Spaced,
    /// `0033639980123`
    Zeroes,
    /// `33639980123`
    Bare,
}

/// How numbers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    /// `20`
    #[default]
    Plain,
    /// `20.0`
    Decimal,
    /// `+20`, `020`, `"20"`: whatever was at hand.
    Sloppy,
}

/// A service's habits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spelling {
    /// How it writes names.
    pub names: Names,
    /// How it writes phone numbers.
    pub phones: Phones,
    /// How it writes numbers.
    pub numbers: Numbers,
    /// Whether it adds what nobody asked for: `utm_source`, a cache buster, an empty parameter.
    pub junk: bool,
    /// Whether it starts with what others end with.
    pub reversed: bool,
    /// Whether it leaves out page 1 and 50 a page.
    pub leaves_defaults_out: bool,
}

impl Spelling {
    /// As the reference page writes it.
    #[must_use]
    pub fn plain() -> Self {
        Self::default()
    }

    /// The query, without `?`.
    pub fn spell(&self, question: &Question, dice: &mut Dice) -> String {
        let mut pairs = Vec::new();
        if let Some(filter) = &question.filter {
            let (name, value) = match filter {
                Filter::Phone(number) => ("phone_number", self.phone(number)),
                Filter::Email(address) => ("email", address.replace('+', "%2B").replace('@', "%40")),
                Filter::Facebook(id) => ("facebook_id", format!("fid_{id}")),
                Filter::Conversation(id) => ("conversation_id", format!("cid_{id}")),
            };
            pairs.push((self.name(name), value));
        }
        for (name, number, default) in [("per_page", question.size, 50), ("page", question.page, 1)] {
            if !(self.leaves_defaults_out && number == default) {
                pairs.push((self.name(name), self.number(number, dice)));
            }
        }
        if self.reversed {
            pairs.reverse();
        }
        if self.junk {
            pairs.push(("utm_source".to_owned(), "dashboard".to_owned()));
            pairs.push(("email".to_owned(), String::new()));
            pairs.push(("_".to_owned(), dice.below(1_000_000_000).to_string()));
            // An empty parameter would take the place of a real one.
            if matches!(question.filter, Some(Filter::Email(_))) {
                pairs.retain(|(name, value)| name != "email" || !value.is_empty());
            }
        }
        let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("&")
    }

    fn name(&self, exact: &str) -> String {
        match self.names {
            Names::Exact => exact.to_owned(),
            Names::Kebab => exact.replace('_', "-"),
            Names::Upper => exact.to_ascii_uppercase(),
            Names::Camel => {
                let mut parts = exact.split('_');
                let first = parts.next().unwrap_or_default().to_owned();
                parts.fold(first, |name, part| name + &part[..1].to_ascii_uppercase() + &part[1..])
            }
        }
    }

    fn number(&self, number: usize, dice: &mut Dice) -> String {
        match self.numbers {
            Numbers::Plain => number.to_string(),
            Numbers::Decimal => format!("{number}.0"),
            Numbers::Sloppy => match dice.below(3) {
                0 => format!("%2B{number}"),
                1 => format!("0{number}"),
                _ => format!("%22{number}%22"),
            },
        }
    }

    fn phone(&self, number: &str) -> String {
        let digits = number.trim_start_matches('+');
        match self.phones {
            Phones::Escaped => format!("%2B{digits}"),
            Phones::RawPlus => format!("+{digits}"),
            Phones::Zeroes => format!("00{digits}"),
            Phones::Bare => digits.to_owned(),
            Phones::Spaced => format!("%2B{}", spaced(digits)),
        }
    }
}

/// A French number as people write it, its spaces as a query has them: `33+6+39+98+01+23`.
pub(super) fn spaced(digits: &str) -> String {
    let mut spaced = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place == 2 || (place >= 3 && place % 2 == 1) {
            spaced.push('+');
        }
        spaced.push(digit);
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::super::asked::Asked;
    use super::*;

    fn question() -> Question {
        Question { filter: Some(Filter::Phone("+33639980123".to_owned())), page: 1, size: 20 }
    }

    #[test]
    fn one_question_in_many_spellings() {
        let plain = Spelling::plain();
        for (spelling, query) in [
            (plain, "phone_number=%2B33639980123&per_page=20&page=1"),
            (
                Spelling { names: Names::Camel, phones: Phones::Spaced, leaves_defaults_out: true, ..plain },
                "phoneNumber=%2B33+6+39+98+01+23&perPage=20",
            ),
            (
                Spelling { names: Names::Kebab, phones: Phones::Zeroes, ..plain },
                "phone-number=0033639980123&per-page=20&page=1",
            ),
            (
                Spelling { names: Names::Upper, phones: Phones::Bare, reversed: true, ..plain },
                "PAGE=1&PER_PAGE=20&PHONE_NUMBER=33639980123",
            ),
            (
                Spelling { numbers: Numbers::Decimal, phones: Phones::RawPlus, ..plain },
                "phone_number=+33639980123&per_page=20.0&page=1.0",
            ),
        ] {
            assert_eq!(spelling.spell(&question(), &mut Dice::new(1)), query);
        }
    }

    #[test]
    fn values_mean_the_same_however_they_are_spelt() {
        let meant = Asked::read(&Spelling::plain().spell(&question(), &mut Dice::new(1)));
        for phones in [Phones::Escaped, Phones::RawPlus, Phones::Spaced, Phones::Zeroes, Phones::Bare] {
            for numbers in [Numbers::Plain, Numbers::Decimal, Numbers::Sloppy] {
                for seed in 0..8 {
                    let spelling =
                        Spelling { phones, numbers, junk: true, reversed: true, ..Spelling::plain() };
                    let query = spelling.spell(&question(), &mut Dice::new(seed));
                    assert_eq!(Asked::read(&query), meant, "{query}");
                }
            }
        }
    }
}
