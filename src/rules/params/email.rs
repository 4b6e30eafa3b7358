//! E-mail addresses: the mailbox as it was written, at a domain as DNS compares it.

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};

use super::clean::{Form, scrub, strip};
use super::notes::Rule;
use super::read::Reading;
use super::uuid::strip_prefix_any_case;

pub(super) fn read(raw: &str) -> Option<Reading> {
    let scrubbed = scrub(raw, Form::Address);
    let cleaned = strip(&scrubbed);
    let (local, domain) = bare(cleaned).rsplit_once('@')?;
    // A space in front was copied along far more often than it is a tag without a name.
    let local = mailbox(local.trim_start())?;
    let domain = domain.trim();
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let domain = Uts46::new()
        .to_ascii(domain.as_bytes(), AsciiDenyList::STD3, Hyphens::Allow, DnsLength::Verify)
        .ok()?;
    Some(Reading::of(format!("{local}@{domain}"), cleaned, Rule::Email))
}

/// Without a display name, `mailto:` and its headers, in any nesting.
fn bare(cleaned: &str) -> &str {
    let mut address = cleaned;
    loop {
        let next = if let Some(rest) = strip_prefix_any_case(address, "mailto:") {
            rest.split_once('?').map_or(rest, |(address, _)| address)
        } else if let Some((_, inner)) = address.strip_suffix('>').and_then(|named| named.rsplit_once('<')) {
            inner
        } else {
            return address;
        };
        address = strip(next);
    }
}

/// The part before the last `@`. Its case and dots are the mail system's own affair (RFC 5321 section 2.4).
fn mailbox(local: &str) -> Option<String> {
    let quoted = local.len() > 2 && local.starts_with('"') && local.ends_with('"');
    let foreign = |c: char| matches!(c, '<' | '>' | '(' | ')' | ',' | ';' | '"');
    let lost = local.contains(char::REPLACEMENT_CHARACTER);
    if local.is_empty() || lost || (!quoted && local.contains(foreign)) {
        return None;
    }
    // No mailbox has a bare space, and an unescaped `+` is one.
    Some(if quoted { local.into() } else { local.replace(char::is_whitespace, "+") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let table = [
            ("a@b.com", Some("a@b.com")),
            ("John.Doe@Example.COM", Some("John.Doe@example.com")),
            (" a@b.com ", Some("a@b.com")),
            ("\"a@b.com\"", Some("a@b.com")),
            ("a+tag@b.com", Some("a+tag@b.com")),
            ("a tag@b.com", Some("a+tag@b.com")),
            ("mailto:a@b.com", Some("a@b.com")),
            ("MAILTO:a@b.com?subject=x@y", Some("a@b.com")),
            ("Ann Bee <a@b.com>", Some("a@b.com")),
            ("\"Bee, Ann\" <mailto:a@b.com>", Some("a@b.com")),
            ("<a@b.com>", Some("a@b.com")),
            ("a@b.com.", Some("a@b.com")),
            ("a@ b.com", Some("a@b.com")),
            ("a\u{200b}@b.com", Some("a@b.com")),
            ("e\u{301}@b.com", Some("é@b.com")),
            ("a@bücher.example", Some("a@xn--bcher-kva.example")),
            ("a@xn--bcher-kva.example", Some("a@xn--bcher-kva.example")),
            ("a@ＢＵ.com", Some("a@bu.com")),
            ("a@b@c.com", Some("a@b@c.com")),
            ("\"a b\"@c.com", Some("\"a b\"@c.com")),
            ("a@localhost", Some("a@localhost")),
            ("a@b.com, c@d.com", None),
            ("a\u{fffd}@b.com", None),
            ("@b.com", None),
            ("a@", None),
            ("a@b..com", None),
            ("a@b c.com", None),
            ("a@[127.0.0.1]", None),
            ("a", None),
            ("", None),
            ("<>", None),
        ];
        for (raw, expected) in table {
            assert_eq!(read(raw).map(|reading| reading.value).as_deref(), expected, "{raw:?}");
        }
    }
}
