//! Selects the cryptography for TLS.

/// Installs ring as the process's provider of TLS cryptography; lettre uses ring too. reqwest is built
/// without a provider and panics if none is installed. A provider that is already installed stays.
pub fn prepare() {
    // An error means only that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
