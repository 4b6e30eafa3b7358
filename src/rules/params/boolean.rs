//! Booleans: the words people and forms use for them. A word outside the list is ignored, not taken for true.

use super::clean::{Form, clean};
use super::notes::Rule;
use super::read::Reading;

const TRUE: [&str; 6] = ["true", "1", "yes", "on", "y", "t"];
const FALSE: [&str; 6] = ["false", "0", "no", "off", "n", "f"];

pub(super) fn read(raw: &str) -> Option<Reading> {
    let word = clean(raw, Form::Compatible);
    let is = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
    let value = match (is(&TRUE), is(&FALSE)) {
        (true, _) => "true",
        (_, true) => "false",
        _ => return None,
    };
    Some(Reading::of(value.into(), &word, Rule::Reformatted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans() {
        let table = [
            ("true", Some("true")),
            ("TRUE", Some("true")),
            ("ｔｒｕｅ", Some("true")),
            (" yes ", Some("true")),
            ("On", Some("true")),
            ("y", Some("true")),
            ("1", Some("true")),
            ("١", Some("true")),
            ("'t'", Some("true")),
            ("false", Some("false")),
            ("No", Some("false")),
            ("off", Some("false")),
            ("0", Some("false")),
            ("F", Some("false")),
            ("", None),
            ("2", None),
            ("-1", None),
            ("maybe", None),
            ("null", None),
            ("truee", None),
        ];
        for (raw, expected) in table {
            assert_eq!(read(raw).map(|reading| reading.value).as_deref(), expected, "{raw:?}");
        }
    }
}
