//! What was done to a query, who is told, and when it is too much: the changes, `Tollgate-Understood`, refusals.

use sfv::{KeyRef, ListSerializer, RefBareItem, StringRef, TokenRef};

use super::emit;
use super::names;
use super::spec::{Compiled, OnIgnored, Params};
use super::understand::{MAX_PAIRS, MAX_VALUE_BYTES, Understood};

/// One thing that was done to one occurrence of a declared parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Position of the parameter in the declared order.
    pub param: usize,
    /// The value as it came, decoded; for an element of a list only that element. May name a person: not for logs.
    pub from: String,
    /// What the parameter became; `None` where it was left out.
    pub to: Option<String>,
    /// Why.
    pub rule: Rule,
}

/// What can be done to a value. The words are metric labels and part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// The name was spelled in another way; the value was canonical.
    Name,
    /// The same value came again.
    Repeated,
    /// Spaces, quotes or invisible characters around or in the value were removed.
    Cleaned,
    /// The same value in another spelling: `2.0`, `TRUE`, an offset.
    Reformatted,
    /// A phone number's separators or prefix.
    Phone,
    /// What surrounded an address, or the case of its domain.
    Email,
    /// A prefix that was missing or repeated.
    Prefixed,
    /// Part of the value was dropped to make it fit its type: `2.7`, `page2`.
    Cast,
    /// A text beyond its `max_length` was cut.
    Truncated,
    /// A figure out of bounds became the bound.
    Clamped,
    /// The value could not be taken as meant; the default stands in.
    Default,
    /// The value could not be taken as meant; the parameter is left out.
    Ignored,
    /// Another occurrence with another value won.
    Duplicate,
    /// The value was longer than [`MAX_VALUE_BYTES`] and was ignored.
    TooLong,
    /// The pair, or element of a list, was one too many and was ignored.
    TooMany,
    /// A page's size above what the upstream gives at once was cut to that. Never in a [`Change`], for it is learned
    /// later: [`capped`] tells it.
    Capped,
    /// The name is not declared. Never in a [`Change`], for there is no parameter.
    Unknown,
}

/// Why a request is refused where loss is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The declared name, or the unknown one as it came, cut to 64 characters.
    pub name: String,
    /// What was expected, such as "an integer of at least 1".
    pub expected: String,
    /// For an unknown name the declared one that was most likely meant.
    pub nearest: Option<String>,
}

impl Rule {
    /// Every rule, for the metrics that are made at start.
    pub const ALL: [Rule; 17] = [
        Rule::Name,
        Rule::Repeated,
        Rule::Cleaned,
        Rule::Reformatted,
        Rule::Phone,
        Rule::Email,
        Rule::Prefixed,
        Rule::Cast,
        Rule::Truncated,
        Rule::Clamped,
        Rule::Default,
        Rule::Ignored,
        Rule::Duplicate,
        Rule::TooLong,
        Rule::TooMany,
        Rule::Capped,
        Rule::Unknown,
    ];

    /// The stable lower-case word for labels and header fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Name => "name",
            Rule::Repeated => "repeated",
            Rule::Cleaned => "cleaned",
            Rule::Reformatted => "reformatted",
            Rule::Phone => "phone",
            Rule::Email => "email",
            Rule::Prefixed => "prefixed",
            Rule::Cast => "cast",
            Rule::Truncated => "truncated",
            Rule::Clamped => "clamped",
            Rule::Default => "default",
            Rule::Ignored => "ignored",
            Rule::Duplicate => "duplicate",
            Rule::TooLong => "too-long",
            Rule::TooMany => "too-many",
            Rule::Capped => "capped",
            Rule::Unknown => "unknown",
        }
    }

    /// Whether the value still means all it meant. Strictness lets only these pass.
    pub fn lossless(self) -> bool {
        match self {
            Rule::Name
            | Rule::Repeated
            | Rule::Cleaned
            | Rule::Reformatted
            | Rule::Phone
            | Rule::Email
            | Rule::Prefixed => true,
            Rule::Cast
            | Rule::Truncated
            | Rule::Clamped
            | Rule::Default
            | Rule::Ignored
            | Rule::Duplicate
            | Rule::TooLong
            | Rule::TooMany
            | Rule::Capped
            | Rule::Unknown => false,
        }
    }
}

impl Understood {
    /// Under `handling=strict` (RFC 7240): the first thing that was lost, in declared order, else an unknown name.
    pub fn strict_refusal(&self, params: &Params) -> Option<Refusal> {
        self.refusal(params, |_| true).or_else(|| {
            let name = self.unknown_names.first()?;
            Some(Refusal {
                name: name.clone(),
                expected: "a declared parameter".into(),
                nearest: names::nearest(&params.declared, name),
            })
        })
    }

    /// The first thing that was lost of a parameter declared [`OnIgnored::Refuse`].
    pub fn required_refusal(&self, params: &Params) -> Option<Refusal> {
        self.refusal(params, |compiled| compiled.param.on_ignored == OnIgnored::Refuse)
    }

    fn refusal(&self, params: &Params, concerns: impl Fn(&Compiled) -> bool) -> Option<Refusal> {
        let lost = |change: &&Change| {
            !change.rule.lossless() && params.declared.get(change.param).is_some_and(&concerns)
        };
        let change = self.changes.iter().find(lost)?;
        let param = &params.declared.get(change.param)?.param;
        let expected = match change.rule {
            Rule::Duplicate => format!("{}, once", param.kind.expected()),
            Rule::TooLong => format!("{} in at most {MAX_VALUE_BYTES} bytes", param.kind.expected()),
            Rule::TooMany => format!("at most {MAX_PAIRS} parameters, and as many elements of a list"),
            _ => param.kind.expected(),
        };
        Some(Refusal { name: param.name.clone(), expected, nearest: None })
    }

    /// The value of `Tollgate-Understood`, a list (RFC 9651 section 3.1) with one member for each parameter and
    /// rule; `None` when nothing was changed. Repeats only values that cannot name anyone.
    pub fn header(&self, params: &Params) -> Option<String> {
        if self.changes.is_empty() && self.unknown == 0 {
            return None;
        }
        let (from, rule, n) =
            (KeyRef::from_str("from").ok()?, KeyRef::from_str("rule").ok()?, KeyRef::from_str("n").ok()?);
        let mut list = ListSerializer::new();
        for (position, change) in self.changes.iter().enumerate() {
            let told = |earlier: &Change| earlier.param == change.param && earlier.rule == change.rule;
            let Some(compiled) = params.declared.get(change.param) else { continue };
            if self.changes[..position].iter().any(told) {
                continue;
            }
            let Some(mut member) = push_name(&mut list, &compiled.param.name) else { continue };
            if compiled.param.kind.is_number_like()
                && change.rule != Rule::Name
                && let Some(raw) = printable(&change.from)
            {
                member = member.parameter(from, raw);
            }
            if let Ok(word) = StringRef::from_str(change.rule.as_str()) {
                let _ = member.parameter(rule, word);
            }
        }
        if self.unknown > 0 {
            let _ = list.bare_item(TokenRef::from_str("unknown").ok()?).parameter(n, self.unknown);
        }
        list.finish()
    }
}

/// What `Tollgate-Understood` says of a page's size, given by the parameter `name`, that the upstream would have cut.
pub fn capped(name: &str, from: u64) -> Option<String> {
    let from = from.to_string();
    let mut list = ListSerializer::new();
    let member = push_name(&mut list, name)?.parameter(KeyRef::from_str("from").ok()?, printable(&from)?);
    let _ =
        member.parameter(KeyRef::from_str("rule").ok()?, StringRef::from_str(Rule::Capped.as_str()).ok()?);
    list.finish()
}

/// A parameter's name as a token where it is one, else as a string, percent-encoded where that is needed.
fn push_name<'l>(
    list: &'l mut ListSerializer<String>,
    name: &str,
) -> Option<sfv::ParameterSerializer<&'l mut String>> {
    if let Ok(token) = TokenRef::from_str(name) {
        return Some(list.bare_item(token));
    }
    if let Ok(string) = StringRef::from_str(name) {
        return Some(list.bare_item(string));
    }
    let encoded = emit::encoded(name);
    StringRef::from_str(&encoded).ok().map(|string| list.bare_item(string))
}

/// A raw value short and plain enough to be repeated.
fn printable(raw: &str) -> Option<RefBareItem<'_>> {
    const MAX_CHARS: usize = 32;
    if raw.len() > MAX_CHARS {
        return None;
    }
    // RFC 9651 section 3.3.3: a string holds printable ASCII and nothing else.
    StringRef::from_str(raw).ok().map(RefBareItem::String)
}

#[cfg(test)]
mod tests {
    use super::super::seed::messages_list;
    use super::super::spec::{Kind, Param, Unknown};
    use super::*;

    #[test]
    fn the_header_tells_what_was_done_and_names_nobody() {
        let table = [
            ("page=1&per_page=20", None),
            ("", None),
            ("page=abc", Some(r#"page;from="abc";rule="default""#)),
            ("PAGE=2", Some(r#"page;rule="name""#)),
            ("page=2.0&page=2", Some(r#"page;from="2.0";rule="repeated""#)),
            ("page=2.7", Some(r#"page;from="2.7";rule="cast""#)),
            ("page=0", Some(r#"page;from="0";rule="clamped""#)),
            ("per_page=0", Some(r#"per_page;from="0";rule="default""#)),
            ("page=%22", Some(r#"page;from="\"";rule="default""#)),
            ("page=%C3%A9", Some(r#"page;rule="default""#)),
            ("page=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Some(r#"page;rule="default""#)),
            ("phone_number=0033612345678", Some(r#"phone_number;rule="phone""#)),
            ("phone_number=FLOWERS", Some(r#"phone_number;rule="ignored""#)),
            ("email=A@B.com", Some(r#"email;rule="email""#)),
            ("email=", Some(r#"email;rule="ignored""#)),
            ("facebook_id=7", Some(r#"facebook_id;rule="prefixed""#)),
            ("contact=hello,world", Some(r#"contact;rule="ignored""#)),
            ("utm_source=x&foo=y", Some("unknown;n=2")),
            ("page=x&utm=y", Some(r#"page;from="x";rule="default", unknown;n=1"#)),
        ];
        let params = messages_list();
        for (query, expected) in table {
            assert_eq!(params.understand(query).header(&params).as_deref(), expected, "{query:?}");
        }
    }

    #[test]
    fn a_size_that_was_cut_is_told_as_others_are() {
        assert_eq!(capped("per_page", 500).as_deref(), Some(r#"per_page;from="500";rule="capped""#));
        assert_eq!(capped("page[size]", 7).as_deref(), Some(r#""page[size]";from="7";rule="capped""#));
    }

    #[test]
    fn names_that_are_no_tokens_are_strings() {
        let named = |name: &str| Param {
            name: name.into(),
            kind: Kind::Email,
            default: None,
            on_ignored: OnIgnored::Ignore,
            window: false,
        };
        let params = Params::new(vec![named("a[b]"), named("é")], Unknown::Drop).ok();
        let header = params.and_then(|params| params.understand("a[b]=&é=").header(&params));
        assert_eq!(header.as_deref(), Some(r#""a[b]";rule="ignored", "%C3%A9";rule="ignored""#));
    }

    #[test]
    fn strictness_refuses_loss_and_lets_spelling_pass() {
        let table = [
            ("page=2.0&PER_PAGE=0x10&phone_number=0033+6+12+34+56+78&email=A@B.COM", None),
            ("page=1&page=1.0", None),
            ("page=1&page=2", Some(("page", "an integer of at least 1, once", None))),
            ("page=abc", Some(("page", "an integer of at least 1", None))),
            ("page=0", Some(("page", "an integer of at least 1", None))),
            ("page=2.7", Some(("page", "an integer of at least 1", None))),
            ("email=", Some(("email", "an e-mail address", None))),
            ("emial=a@b.com", Some(("emial", "a declared parameter", Some("email")))),
            ("utm_source=x", Some(("utm_source", "a declared parameter", None))),
            ("utm_source=x&email=1", Some(("email", "an e-mail address", None))),
        ];
        let params = messages_list();
        for (query, expected) in table {
            let refusal = params.understand(query).strict_refusal(&params);
            let told = refusal.as_ref().map(|r| (r.name.as_str(), r.expected.as_str(), r.nearest.as_deref()));
            assert_eq!(told, expected, "{query:?}");
            assert_eq!(params.understand(query).required_refusal(&params), None, "{query:?}");
        }
    }

    #[test]
    fn a_required_parameter_refuses_by_itself() {
        let mut email = Param {
            name: "email".into(),
            kind: Kind::Email,
            default: None,
            on_ignored: OnIgnored::Refuse,
            window: false,
        };
        let required = email.clone();
        email.name = "cc".into();
        email.on_ignored = OnIgnored::Ignore;
        let params = Params::new(vec![required, email], Unknown::Drop).ok();
        let refused = |query: &str| {
            params.as_ref().and_then(|p| p.understand(query).required_refusal(p)).map(|refusal| refusal.name)
        };
        assert_eq!(refused("email=nobody&cc=nobody&utm=x"), Some("email".into()));
        assert_eq!(refused("email=A@B.com&cc=nobody&utm=x"), None);
        assert_eq!(refused(""), None);
    }

    #[test]
    fn every_rule_has_its_own_word() {
        let mut words: Vec<_> = Rule::ALL.iter().map(|rule| rule.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Rule::ALL.len());
        assert!(words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
    }
}
