//! Selects the cryptography for TLS.

/// Makes TLS use ring in this process, as lettre does. reqwest is built without a provider and panics if
/// there is none. An earlier choice stays.
pub fn prepare() {
    // An error means that a provider is already installed, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
