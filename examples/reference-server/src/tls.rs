//! Which cryptography TLS uses.

/// Has TLS use ring in this process, as lettre does: reqwest is built without a provider of its own,
/// and panics where there is none. A choice that was made before stays.
pub fn prepare() {
    // That there is one already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
