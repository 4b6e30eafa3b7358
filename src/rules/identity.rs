//! Who asks: a presented key is looked up by its keyed digest, so that comparing takes the same time whatever is
//! presented and no table holds a key.

use std::collections::HashMap;

use http::header::{self, HeaderMap, HeaderName};
use ring::hmac;

use crate::model::exchange::{Certificate, ClientId};
use crate::model::fields::named;
use crate::model::secret::Secret;

/// The field a client may present its key in, beside `Authorization: Bearer`.
pub const KEY_FIELD: HeaderName = HeaderName::from_static("x-tollgate-key");

/// Every declared client by the digest of its key.
#[derive(Debug)]
pub struct Clients {
    pepper: hmac::Key,
    by_digest: HashMap<[u8; 32], ClientId>,
    by_certificate: HashMap<String, ClientId>,
    /// Whether callers without a key are served.
    anonymous: bool,
}

/// What a request's headers say of its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// A client the plan declares, or `anonymous`.
    Known(ClientId),
    /// No key, and anonymous callers are not served.
    Keyless,
    /// A key nobody holds.
    Stranger,
}

impl Clients {
    /// The table of these clients; `pepper` is random and new for every process.
    pub fn new<'a>(
        keys: impl IntoIterator<Item = (&'a Secret, ClientId)>,
        certificates: impl IntoIterator<Item = (String, ClientId)>,
        allow_anonymous: bool,
        pepper: &[u8; 32],
    ) -> Self {
        let pepper = hmac::Key::new(hmac::HMAC_SHA256, pepper);
        let by_digest: HashMap<_, _> =
            keys.into_iter().map(|(key, client)| (digest(&pepper, key.expose()), client)).collect();
        let by_certificate: HashMap<_, _> = certificates.into_iter().collect();
        let nobody = by_digest.is_empty() && by_certificate.is_empty();
        Self { anonymous: allow_anonymous || nobody, pepper, by_digest, by_certificate }
    }

    /// Finds the sender and removes its key from `headers`, so that it goes nowhere else. A key goes before the
    /// connection's certificate: whoever shows one means to be that client.
    pub fn identify(&self, headers: &mut HeaderMap, certificate: Option<&Certificate>) -> Sender {
        let has_own = named(headers, KEY_FIELD).next().is_some();
        let own = if has_own { headers.remove(KEY_FIELD) } else { None };
        if self.by_digest.is_empty() && self.by_certificate.is_empty() {
            return Sender::Known(ClientId(0));
        }
        if let Some(key) = &own {
            return self.find(key.as_bytes()).map_or(Sender::Stranger, Sender::Known);
        }
        // `Authorization` may also be the upstream's affair; it is a client's key only if a client has that key.
        let bearer = named(headers, header::AUTHORIZATION).next().and_then(|value| bearer(value.as_bytes()));
        if let Some(client) = bearer.and_then(|key| self.find(key)) {
            headers.remove(header::AUTHORIZATION);
            return Sender::Known(client);
        }
        if let Some(client) = certificate.and_then(|held| self.find_certificate(held)) {
            return Sender::Known(client);
        }
        match bearer {
            _ if self.anonymous => Sender::Known(ClientId(0)),
            Some(_) => Sender::Stranger,
            None => Sender::Keyless,
        }
    }

    fn find_certificate(&self, certificate: &Certificate) -> Option<ClientId> {
        certificate.names.iter().find_map(|name| self.by_certificate.get(name)).copied()
    }

    fn find(&self, key: &[u8]) -> Option<ClientId> {
        self.by_digest.get(&digest(&self.pepper, key)).copied()
    }
}

fn digest(pepper: &hmac::Key, key: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(hmac::sign(pepper, key).as_ref());
    digest
}

/// The credentials of `Bearer` (RFC 6750 §2.1); the scheme's name in any case (RFC 9110 §11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_key_names_its_client_and_goes_no_further() {
        let keys =
            [(Secret::new(b"alpha".to_vec()), ClientId(1)), (Secret::new(b"beta".to_vec()), ClientId(2))];
        let strict = Clients::new(keys.iter().map(|(key, id)| (key, *id)), [], false, &[7; 32]);
        let open = Clients::new(keys.iter().map(|(key, id)| (key, *id)), [], true, &[7; 32]);
        for (name, value, of_strict, of_open, left) in [
            ("x-tollgate-key", "alpha", Sender::Known(ClientId(1)), Sender::Known(ClientId(1)), false),
            ("authorization", "Bearer beta", Sender::Known(ClientId(2)), Sender::Known(ClientId(2)), false),
            ("authorization", "bEARER  beta ", Sender::Known(ClientId(2)), Sender::Known(ClientId(2)), false),
            ("x-tollgate-key", "gamma", Sender::Stranger, Sender::Stranger, false),
            ("authorization", "Bearer gamma", Sender::Stranger, Sender::Known(ClientId(0)), true),
            ("authorization", "Basic beta", Sender::Keyless, Sender::Known(ClientId(0)), true),
            ("accept", "*/*", Sender::Keyless, Sender::Known(ClientId(0)), true),
        ] {
            for (clients, sender) in [(&strict, of_strict), (&open, of_open)] {
                let mut headers = HeaderMap::new();
                headers.insert(name, HeaderValue::from_static(value));
                assert_eq!(clients.identify(&mut headers, None), sender, "{name}: {value}");
                assert_eq!(headers.contains_key(name), left, "{name}: {value}");
            }
        }
    }

    #[test]
    fn a_certificate_names_its_client_where_no_key_does() {
        let key = Secret::new(b"alpha".to_vec());
        let clients =
            Clients::new([(&key, ClientId(1))], [("billing.internal".into(), ClientId(2))], false, &[7; 32]);
        let certificate = |name: &str| Certificate { names: vec!["other".into(), name.into()] };
        let mut keyed = HeaderMap::new();
        keyed.insert(KEY_FIELD, HeaderValue::from_static("alpha"));
        for (headers, name, sender) in [
            (HeaderMap::new(), "billing.internal", Sender::Known(ClientId(2))),
            (HeaderMap::new(), "nobody.internal", Sender::Keyless),
            (keyed, "billing.internal", Sender::Known(ClientId(1))),
        ] {
            let mut headers = headers;
            assert_eq!(clients.identify(&mut headers, Some(&certificate(name))), sender, "{name}");
        }
    }
}
