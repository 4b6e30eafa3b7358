//! `[clients.NAME]`: who spends it.

use super::Environment;
use super::mistakes::{Wrong, nearest};
use super::plan::{Client, Route};
use super::reader::{Item, Table};
use super::secrets::{Place, credential};
use super::values;
use crate::model::urgency::Class;

const ANONYMOUS: &str = "anonymous";

/// `anonymous`, then the declared ones.
pub(super) fn read(
    root: &mut Table<'_>,
    routes: &[Route],
    has_client_ca: bool,
    environment: &dyn Environment,
) -> Vec<Client> {
    let mut clients = vec![anonymous()];
    for (name, mut table) in root.named_tables("clients") {
        if name == ANONYMOUS {
            let wrong = Wrong::new(
                "is the name of callers without a key",
                "another name; see server.allow_anonymous",
            );
            table.notes.tell(&table.at, &table.path, wrong);
        }
        let key_item = table.item("key");
        let certificate = table.take("certificate", |item| certificate(item, has_client_ca, &clients));
        if key_item.is_none() && certificate.is_none() {
            table.missing("key", "key = { env = \"NAME\" }, or `certificate`");
        }
        let key = key_item.as_ref().and_then(|item| item.read(credential(environment, Place::Key)));
        if let (Some(item), Some(key)) = (&key_item, &key) {
            let same = |other: &&Client| other.key.as_ref().is_some_and(|other| other.value == key.value);
            if let Some(other) = clients.iter().find(same) {
                let what = format!("is the key of client `{}` too", other.name);
                item.tell(Wrong::new(what, "a key of its own").secret());
            }
        }
        let weight = table.take("weight", values::count(1..=1_000));
        let words = [Class::Interactive, Class::Batch].map(|class| (class.as_str(), class));
        let priority = table.take("priority", values::word(&words));
        clients.push(Client {
            name: name.into(),
            key,
            certificate,
            rate_limit: table.take("rate_limit", values::rate),
            budget: table.take("budget", super::quota::budget),
            weight: weight.unwrap_or(1),
            priority: priority.unwrap_or(Class::Interactive),
            routes: table.take("routes", |item| allowed(item, routes)),
            strict: table.or("strict", false, Item::boolean),
            may_refresh: table.or("may_refresh", false, Item::boolean),
        });
        table.finish();
    }
    if clients.len() > usize::from(u16::MAX) {
        root.notes.tell(&(0..0), "clients", Wrong::new("are too many", "at most 65,535"));
    }
    clients
}

fn anonymous() -> Client {
    Client {
        name: ANONYMOUS.into(),
        key: None,
        certificate: None,
        rate_limit: None,
        budget: None,
        weight: 1,
        priority: Class::Interactive,
        routes: None,
        strict: false,
        may_refresh: false,
    }
}

/// The DNS name of a client's certificate, which `server.tls.client_ca` must have signed.
fn certificate(item: &Item<'_>, has_client_ca: bool, clients: &[Client]) -> Result<String, Wrong> {
    let expected = "the DNS name in the client's certificate, such as \"billing.internal\"";
    let name = item.text(expected)?.to_ascii_lowercase();
    if rustls_pki_types::DnsName::try_from(name.as_str()).is_err() {
        return Err(Wrong::new(format!("{} is no DNS name", values::quoted(&name)), expected));
    }
    if !has_client_ca {
        return Err(Wrong::new("can never be presented", "`client_ca` in [server.tls]"));
    }
    match clients.iter().find(|client| client.certificate.as_ref() == Some(&name)) {
        Some(other) => {
            Err(Wrong::new(format!("is the name of client `{}` too", other.name), "a name of its own"))
        }
        None => Ok(name),
    }
}

/// The routes a client may use, by place.
fn allowed(item: &Item<'_>, routes: &[Route]) -> Result<Vec<usize>, Wrong> {
    item.list("a list of route names", |item| {
        let name = item.text("the name of a route")?;
        routes.iter().position(|route| route.name == name).ok_or_else(|| {
            let near = nearest(name, routes.iter().map(|route| route.name.as_str()));
            Wrong::new(format!("route {} does not exist", values::quoted(name)), "the name of a route")
                .near(near)
        })
    })
}
