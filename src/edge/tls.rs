//! TLS on both sides: rustls with ring. What is trusted, who the gate is, and whom it asks for a certificate.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::model::exchange::Certificate;

/// TLS towards an upstream.
#[derive(Debug, Clone)]
pub struct UpstreamTls {
    /// Which authorities are trusted.
    pub roots: Roots,
    /// A PEM file of further authorities.
    pub ca: Option<PathBuf>,
    /// The authorities in it, DER.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// The gate's own certificate towards the upstream.
    pub identity: Option<Arc<Identity>>,
}

/// Whose word on certificates counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roots {
    /// Mozilla's authorities, as this program was built with.
    Bundled,
    /// The system's.
    Platform,
}

/// TLS towards clients.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// The gate's certificate.
    pub identity: Arc<Identity>,
    /// A PEM file of authorities whose certificates clients may present.
    pub client_ca: Option<PathBuf>,
    /// The authorities in it, DER; empty: clients are not asked for certificates.
    pub client_roots: Vec<CertificateDer<'static>>,
}

/// A certificate and its private key.
pub struct Identity {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
    /// The certificate, the chain behind it; DER.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key, DER.
    pub secret: PrivateKeyDer<'static>,
}

impl Identity {
    /// Whether key and certificate can be used, and with each other.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), rustls::Error> {
        let provider = rustls::crypto::ring::default_provider();
        rustls::sign::CertifiedKey::from_der(self.chain.clone(), self.secret.clone_key(), &provider).map(drop)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certificate", &self.certificate)
            .field("key", &"***")
            .finish_non_exhaustive()
    }
}

impl UpstreamTls {
    /// For an upstream that speaks in clear text.
    pub fn unused() -> Self {
        Self { roots: Roots::Bundled, ca: None, extra_roots: Vec::new(), identity: None }
    }

    /// rustls' configuration for connecting. Certificates are always verified.
    ///
    /// # Errors
    /// An authority or an identity that cannot be used, or a platform without authorities.
    pub fn to_config(&self) -> Result<ClientConfig, rustls::Error> {
        let mut roots = RootCertStore::empty();
        match self.roots {
            Roots::Bundled => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Roots::Platform => {
                let found = rustls_native_certs::load_native_certs();
                // Some of a system's certificates may be odd; none at all is a mistake.
                let (added, _) = roots.add_parsable_certificates(found.certs);
                if added == 0 {
                    return Err(rustls::Error::General(
                        "the system has no certificates of authorities".into(),
                    ));
                }
            }
        }
        for certificate in &self.extra_roots {
            roots.add(certificate.clone())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        match &self.identity {
            Some(identity) => {
                builder.with_client_auth_cert(identity.chain.clone(), identity.secret.clone_key())
            }
            None => Ok(builder.with_no_client_auth()),
        }
    }
}

impl ServerTls {
    /// rustls' configuration for accepting, HTTP/2 preferred.
    ///
    /// # Errors
    /// An authority or an identity that cannot be used.
    pub fn to_config(&self) -> Result<ServerConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = if self.client_roots.is_empty() {
            builder.with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            for certificate in &self.client_roots {
                roots.add(certificate.clone())?;
            }
            // A client without a certificate may still have a key; one with a bad certificate is refused.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        };
        let mut config =
            builder.with_single_cert(self.identity.chain.clone(), self.identity.secret.clone_key())?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// What the other end's verified certificate says of it: the DNS names in it.
pub fn certificate_of(connection: &rustls::ServerConnection) -> Option<Arc<Certificate>> {
    let presented = connection.peer_certificates()?.first()?;
    let certificate = webpki::EndEntityCert::try_from(presented).ok()?;
    let names = certificate.valid_dns_names().map(str::to_ascii_lowercase).collect();
    Some(Arc::new(Certificate { names }))
}
