//! Certificates and keys: PEM files, opened and checked when the configuration is read.

use std::path::PathBuf;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Environment;
use super::mistakes::Wrong;
use super::plan::{Identity, Roots, ServerTls, UpstreamTls};
use super::reader::{Item, Table};
use super::{secrets, values};

/// `[upstreams.NAME.tls]`; `None` where nothing of it was written.
pub(super) fn upstream(mut table: Table<'_>, is_https: bool, environment: &dyn Environment) -> UpstreamTls {
    for key in ["ca", "roots", "certificate", "key"] {
        if let Some(item) = table.item(key).filter(|_| !is_https) {
            item.tell(Wrong::new("is of no use to an http upstream", "`url` to begin with https://"));
        }
    }
    let words = [("bundled", Roots::Bundled), ("platform", Roots::Platform)];
    let (ca, extra_roots) = table.take("ca", |item| authorities(item, environment)).unzip();
    let tls = UpstreamTls {
        roots: table.or("roots", Roots::Bundled, values::word(&words)),
        ca,
        extra_roots: extra_roots.unwrap_or_default(),
        identity: identity(&mut table, environment),
    };
    table.finish();
    tls
}

/// `[server.tls]`
pub(super) fn server(mut table: Table<'_>, environment: &dyn Environment) -> Option<ServerTls> {
    for key in ["certificate", "key"] {
        if table.item(key).is_none() {
            table.missing(key, "a PEM file, beside the other of `certificate` and `key`");
        }
    }
    let (client_ca, client_roots) = table.take("client_ca", |item| authorities(item, environment)).unzip();
    let identity = identity(&mut table, environment);
    table.finish();
    Some(ServerTls { identity: identity?, client_ca, client_roots: client_roots.unwrap_or_default() })
}

/// `certificate` and `key`, which go together.
fn identity(table: &mut Table<'_>, environment: &dyn Environment) -> Option<Arc<Identity>> {
    let (certificate, key) = (table.item("certificate"), table.item("key"));
    match (&certificate, &key) {
        (Some(one), None) | (None, Some(one)) => {
            one.tell(Wrong::new("stands alone", "`certificate` and `key`, both or neither"));
            return None;
        }
        (None, None) => return None,
        (Some(_), Some(_)) => {}
    }
    let (certificate, chain) = certificate?.read(|item| certificates(item, environment))?;
    let key_item = key?;
    let (key, secret) = key_item.read(|item| private_key(item, environment))?;
    let identity = Identity { certificate, key, chain, secret };
    if let Err(error) = identity.check() {
        let what = format!("does not belong to the certificate, or cannot be used: {error}");
        key_item.tell(Wrong::new(what, "the private key of `certificate`"));
        return None;
    }
    Some(Arc::new(identity))
}

/// The certificates of a PEM file, each checked to be one that can be trusted.
fn authorities(
    item: &Item<'_>,
    environment: &dyn Environment,
) -> Result<(PathBuf, Vec<CertificateDer<'static>>), Wrong> {
    let expected = "a PEM file with certificates of authorities";
    let (path, certificates) = pem(item, environment, expected)?;
    let mut store = rustls::RootCertStore::empty();
    for certificate in &certificates {
        store.add(certificate.clone()).map_err(|error| {
            Wrong::new(format!("file `{}` holds one that cannot be used: {error}", path.display()), expected)
        })?;
    }
    Ok((path, certificates))
}

fn certificates(
    item: &Item<'_>,
    environment: &dyn Environment,
) -> Result<(PathBuf, Vec<CertificateDer<'static>>), Wrong> {
    pem(item, environment, "a PEM file with a certificate, the chain behind it")
}

fn pem(
    item: &Item<'_>,
    environment: &dyn Environment,
    expected: &'static str,
) -> Result<(PathBuf, Vec<CertificateDer<'static>>), Wrong> {
    let path = secrets::path(item)?;
    let text = secrets::read(&path, environment).map_err(|what| Wrong::new(what, expected))?;
    let wrong = |what: String| Wrong::new(format!("file `{}` {what}", path.display()), expected);
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| wrong(format!("is no PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(wrong("holds no certificate".into()));
    }
    Ok((path, certificates))
}

fn private_key(
    item: &Item<'_>,
    environment: &dyn Environment,
) -> Result<(PathBuf, PrivateKeyDer<'static>), Wrong> {
    let expected = "a PEM file with a private key";
    let path = secrets::path(item)?;
    let text = zeroize::Zeroizing::new(
        secrets::read(&path, environment).map_err(|what| Wrong::new(what, expected))?,
    );
    let key = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| Wrong::new(format!("file `{}` holds no private key", path.display()), expected))?;
    Ok((path, key))
}
