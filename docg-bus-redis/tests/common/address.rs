//! An address that stays the same in a failover, as a virtual IP or a service's name does.

use docg_test_servers::redis::PrivateServer;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// A proxy that leads to one server, and later to another. Dropping this value closes the proxy.
pub(crate) struct Address {
    port: u16,
    leads_to: watch::Sender<u16>,
    task: AbortHandle,
}

impl Address {
    pub(crate) async fn of(server: &PrivateServer) -> Self {
        Self::moving(server, server).await
    }

    /// An address that leads the first connection to `first`, and all others to `then`.
    pub(crate) async fn moving(first: &PrivateServer, then: &PrivateServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("is bound").port();
        let (leads_to, current) = watch::channel(then.port());
        let task = tokio::spawn(pass_on(listener, first.port(), current)).abort_handle();
        Self {
            port,
            leads_to,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Leads new connections to this server. Connections that exist stay where they are.
    pub(crate) fn lead_to(&self, server: &PrivateServer) {
        self.leads_to.send_replace(server.port());
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(listener: TcpListener, first: u16, leads_to: watch::Receiver<u16>) {
    let mut first = Some(first);
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let port = first.take().unwrap_or(*leads_to.borrow());
        connections.spawn(async move {
            if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                // An error ends the connection just as well.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}
