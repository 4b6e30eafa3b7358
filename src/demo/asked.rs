//! What a query means to Octopush, read as leniently as its reference page says.
//!
//! "If a parameter has the wrong value, we will try to understand it anyway": values are cast, prohibited characters
//! deleted, and what cannot be repaired is ignored while the request is still answered. Names are another matter: the
//! page says nothing of misspelt ones, so only the exact names are recognised and any other is ignored. Of several
//! values for one name the last counts.

use percent_encoding::percent_decode_str;

/// What selects a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The digits of an international phone number, without its `+`: every conversation but Facebook's.
    Phone(String),
    /// The conversations by the phone number of the contact that has this address.
    Email(String),
    /// Facebook conversations with this ID, without its `fid_`.
    Facebook(String),
    /// One conversation, by a lower-case UUID with hyphens.
    Conversation(String),
}

/// A query, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The page, from 1.
    pub page: usize,
    /// How many messages a page has, at least 1.
    pub per_page: usize,
    /// A conversation is meant if every filter has a selector that selects it: `contact` gives one filter of several
    /// selectors, each of its siblings a filter of one. No filter means every conversation.
    pub filters: Vec<Vec<Selector>>,
}

const FIRST_PAGE: usize = 1;
const PER_PAGE: usize = 50;

impl Asked {
    /// Reads the part of a target after its `?`. There is no query that cannot be read.
    #[must_use]
    pub fn read(query: &str) -> Self {
        let mut asked = Self { page: FIRST_PAGE, per_page: PER_PAGE, filters: Vec::new() };
        let mut filters: [Option<Vec<Selector>>; 5] = Default::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value);
            let (place, selectors) = match decode(name).as_str() {
                "page" => {
                    asked.page = count(&value).unwrap_or(FIRST_PAGE);
                    continue;
                }
                "per_page" => {
                    asked.per_page = count(&value).unwrap_or(PER_PAGE);
                    continue;
                }
                "contact" => (0, contact(&value)),
                "phone_number" => (1, phone(&value).into_iter().collect()),
                "email" => (2, email(&value).into_iter().collect()),
                "facebook_id" => (3, facebook(&value).into_iter().collect()),
                "conversation_id" => (4, conversation(&value).into_iter().collect()),
                _ => continue,
            };
            filters[place] = Some(selectors).filter(|selectors: &Vec<Selector>| !selectors.is_empty());
        }
        asked.filters = filters.into_iter().flatten().collect();
        asked
    }
}

fn decode(part: &str) -> String {
    percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// A whole number of at least 1: `20`, `20.0` and `2e1` are 20; `2abc` and `page 2` are 2; `1,000` is 1000.
fn count(value: &str) -> Option<usize> {
    let value = value.trim().trim_matches(['"', '\'']);
    let number = match value.parse::<f64>() {
        Ok(number) if number.is_finite() => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "cutting toward zero and saturating are what a lenient cast does"
            )]
            let whole = number as usize;
            whole
        }
        _ if value.starts_with('-') => 0,
        _ => first_digits(value),
    };
    (number > 0).then_some(number)
}

/// The first run of digits, commas between groups of three deleted; 0 without any.
fn first_digits(value: &str) -> usize {
    let rest = value.trim_start_matches(|sign: char| !sign.is_ascii_digit()).as_bytes();
    let mut number = 0_usize;
    for (place, byte) in rest.iter().enumerate() {
        match byte {
            b'0'..=b'9' => number = number.saturating_mul(10).saturating_add(usize::from(byte - b'0')),
            b',' if rest
                .get(place + 1..place + 4)
                .is_some_and(|group| group.iter().all(u8::is_ascii_digit)) => {}
            _ => break,
        }
    }
    number
}

/// "A combination of the following values": separated by commas, each known by its looks.
fn contact(value: &str) -> Vec<Selector> {
    value.split([',', ';', '|']).filter_map(contact_value).collect()
}

fn contact_value(value: &str) -> Option<Selector> {
    let bare = value.trim().to_ascii_lowercase();
    if bare.starts_with("fid_") {
        facebook(value)
    } else if bare.contains('@') {
        email(value)
    } else {
        conversation(value).or_else(|| phone(value))
    }
}

/// Digits are kept and all else deleted; a number without its country is taken for a French one.
fn phone(value: &str) -> Option<Selector> {
    let number = value.to_ascii_lowercase();
    let number = number.split(['x', ';']).next().unwrap_or_default().replace("(0)", "");
    let number = number.trim().trim_start_matches("tel:");
    if number.contains(char::is_alphabetic) {
        return None;
    }
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    let international = digits.strip_prefix("00").unwrap_or(&digits);
    let international = match international.strip_prefix('0') {
        Some(national) if national.len() == 9 => format!("33{national}"),
        _ => international.to_owned(),
    };
    (international.len() >= 3).then_some(Selector::Phone(international))
}

/// An address in lower case. A space in it was a `+` that nobody escaped.
fn email(value: &str) -> Option<Selector> {
    let value = value.trim().trim_start_matches("mailto:").to_lowercase().replace(' ', "+");
    let (local, domain) = value.rsplit_once('@')?;
    (!local.is_empty() && !domain.is_empty()).then_some(Selector::Email(value))
}

/// "Value format should be `fid_{facebook_id}`": the prefix may be missing or doubled.
fn facebook(value: &str) -> Option<Selector> {
    let id = without_prefix(value.trim(), "fid_");
    let id: String =
        id.chars().filter(|sign| sign.is_ascii_alphanumeric() || "._-".contains(*sign)).collect();
    (!id.is_empty()).then_some(Selector::Facebook(id))
}

/// "Input format will be `cid_{uuid}`": the prefix and the hyphens may be missing, braces and case do not matter.
fn conversation(value: &str) -> Option<Selector> {
    let bare = value.trim().trim_matches(['{', '}']);
    let bare = without_prefix(without_prefix(bare, "cid_").trim_matches(['{', '}']), "urn:uuid:");
    let digits: String =
        bare.chars().filter(|sign| *sign != '-').map(|sign| sign.to_ascii_lowercase()).collect();
    let is_uuid = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_uuid.then(|| {
        let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        Selector::Conversation(groups.join("-"))
    })
}

/// Cuts every repetition of a prefix, in any case.
fn without_prefix<'a>(value: &'a str, prefix: &str) -> &'a str {
    let mut rest = value;
    while rest.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)) {
        rest = &rest[prefix.len()..];
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pages_and_sizes() {
        for (query, page, per_page) in [
            ("", 1, 50),
            ("page=3&per_page=20", 3, 20),
            ("page=2abc&per_page=20.0", 2, 20),
            ("page=+2&per_page=2e1", 2, 20),
            ("page=%222%22&per_page=1,000", 2, 1_000),
            ("page=page+2&per_page=twenty", 2, 50),
            ("page=0&per_page=0", 1, 50),
            ("page=-3&per_page=-20x", 1, 50),
            ("page=&per_page", 1, 50),
            ("page=NaN&per_page=inf", 1, 50),
            ("page=99999999999999999999999999", usize::MAX, 50),
            ("page=2&page=4", 4, 50),
            ("PAGE=3&per-page=20&perPage=5&utm_source=x", 1, 50),
            ("%70age=3", 3, 50),
        ] {
            let asked = Asked::read(query);
            assert_eq!((asked.page, asked.per_page), (page, per_page), "{query}");
            assert_eq!(asked.filters, Vec::<Vec<Selector>>::new(), "{query}");
        }
    }

    #[test]
    fn one_selector() {
        const UUID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
        let phone = || Selector::Phone("33639980123".to_owned());
        let lea = |address: &str| Selector::Email(address.to_owned());
        let conversation = || Selector::Conversation(UUID.to_owned());
        let facebook = || Selector::Facebook("100021".to_owned());
        for (query, selector) in [
            ("phone_number=%2B33639980123", phone()),
            ("phone_number=+33639980123", phone()),
            ("phone_number=0033+6.39-98/01 23", phone()),
            ("phone_number=33639980123", phone()),
            ("phone_number=06+39+98+01+23", phone()),
            ("phone_number=%2B33+(0)6+39+98+01+23+x12", phone()),
            ("phone_number=tel:+33639980123", phone()),
            ("email=L%C3%A9a@Example.org", lea("léa@example.org")),
            ("email=lea+news@example.org", lea("lea+news@example.org")),
            ("email=mailto:lea@example.org", lea("lea@example.org")),
            ("facebook_id=fid_100021", facebook()),
            ("facebook_id=FID_fid_100021", facebook()),
            ("facebook_id=100021", facebook()),
            ("conversation_id=cid_0f8fad5b-d9cb-469f-a165-70867728950e", conversation()),
            ("conversation_id=CID_0F8FAD5BD9CB469FA16570867728950E", conversation()),
            ("conversation_id={0f8fad5b-d9cb-469f-a165-70867728950e}", conversation()),
            ("conversation_id=urn:uuid:0f8fad5b-d9cb-469f-a165-70867728950e", conversation()),
            ("contact=cid_0f8fad5b-d9cb-469f-a165-70867728950e", conversation()),
            ("contact=fid_100021", facebook()),
            ("contact=lea@example.org,", lea("lea@example.org")),
            ("contact=,+33639980123", phone()),
        ] {
            assert_eq!(Asked::read(query).filters, [[selector]], "{query}");
        }
    }

    #[test]
    fn what_cannot_be_repaired_is_ignored() {
        for query in [
            "phone_number=nobody",
            "phone_number=12",
            "phone_number=",
            "email=lea",
            "email=@example.org",
            "facebook_id=fid_",
            "conversation_id=cid_123",
            "contact=,;",
            "contact=hello",
            "%ff%zz&&==&",
        ] {
            assert!(Asked::read(query).filters.is_empty(), "{query}");
        }
    }

    #[test]
    fn filters_stand_beside_each_other_and_a_contact_holds_alternatives() {
        let asked =
            Asked::read("contact=%2B33639980123;fid_7&email=a@example.org&phone_number=12&phone_number=345");
        assert_eq!(
            asked.filters,
            [
                vec![Selector::Phone("33639980123".to_owned()), Selector::Facebook("7".to_owned())],
                vec![Selector::Phone("345".to_owned())],
                vec![Selector::Email("a@example.org".to_owned())],
            ]
        );
    }

    proptest! {
        #[test]
        fn any_query_can_be_read(query in ".*", value in ".*") {
            for query in [query, format!("page={value}&phone_number={value}&conversation_id={value}&contact={value}")] {
                let asked = Asked::read(&query);
                prop_assert!(asked.page >= 1 && asked.per_page >= 1);
            }
        }
    }
}
