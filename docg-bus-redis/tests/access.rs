//! Access to Redis: users and their rights, passwords, prefixes, TLS, and servers that do not answer.

mod common;

use std::time::Duration;

use common::{ask, config, next, open, publish, raw, soon, subscribe};
use docg_bus_redis::{RedisBus, RedisConfig};
use docg_core::{
    conformance::fixtures::events,
    ports::{BusError, EventBus},
};
use docg_test_servers::redis::{Keyspace, PrivateServer};
use futures::StreamExt;

/// The ACL rule in the README, with the rights that a user of Redis needs.
fn acl() -> &'static str {
    let readme = include_str!("../README.md");
    let rule = readme
        .lines()
        .find_map(|line| line.strip_prefix("ACL SETUSER docg "));
    rule.expect("the README has the rule")
}

async fn assert_works(bus: &RedisBus) {
    let events = events(2);
    let mut list = bus
        .subscribe_organization(events[0].organization_id, None)
        .await
        .expect("subscribes");
    let mut wakes = bus.wakes().await.expect("listens");
    publish(bus, &events).await;
    let mut reader = subscribe(bus, events[0].execution_id, 0).await;
    assert_eq!(next(&mut reader, 2).await, [1, 2]);
    soon(list.next())
        .await
        .expect("goes on")
        .expect("is an event");
    bus.wake(events[0].execution_id).await.expect("wakes");
    assert_eq!(soon(wakes.next()).await, Some(events[0].execution_id));
    bus.check().await.expect("answers");
    bus.cleanup().await.expect("cleans up");
}

#[tokio::test]
async fn a_user_with_the_documented_rights_may_do_all_that_is_needed() {
    let server = PrivateServer::start();
    let mut connection = raw(&server.url()).await;
    let rule = acl().replace(">secret", ">s%cret/@");
    let _: String = ask(&mut connection, &format!("ACL SETUSER docg {rule}")).await;
    let _: String = ask(&mut connection, "ACL SETUSER default off").await;
    let url = format!("redis://docg:s%25cret%2F%40@127.0.0.1:{}/0", server.port());
    assert_works(&*open(config(&url)).await).await;
}

/// A later version may need one more right. The error, which is also logged, must then name the right.
#[tokio::test]
async fn a_right_that_the_user_lacks_is_named() {
    let server = PrivateServer::start();
    let mut connection = raw(&server.url()).await;
    let url = format!("redis://docg:secret@127.0.0.1:{}", server.port());
    for (from, to, told) in [
        (" +info", "", "may not call INFO, the ACL needs +info"),
        (
            " +script|load",
            "",
            "may not call SCRIPT LOAD, the ACL needs +script|load",
        ),
        // A script calls XADD, and not every server tells which command a script may not call.
        (" +xadd", "", "the ACL"),
        ("~docg:*", "~other:*", "may not use docg's keys"),
    ] {
        let rule = format!("ACL SETUSER docg reset {}", acl().replace(from, to));
        let _: String = ask(&mut connection, &rule).await;
        let _: String = ask(&mut connection, "SCRIPT FLUSH").await;
        let bus = RedisBus::open(config(&url)).expect("is a configuration");
        let Err(BusError::Unavailable(reason)) = soon(bus.publish(&events(1))).await else {
            panic!("it is refused");
        };
        assert!(reason.contains(told), "{reason}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_but_not_repeated() {
    let server = PrivateServer::start_with(|_| "requirepass right\n".to_owned());
    let url = format!("redis://:wr0ng-secret@127.0.0.1:{}", server.port());
    let config = config(&url);
    assert!(!format!("{config:?}").contains("wr0ng"));
    let bus = RedisBus::open(config).expect("is a configuration");
    assert!(!format!("{bus:?}").contains("wr0ng"));
    let Err(BusError::Unavailable(reason)) = soon(bus.publish(&events(1))).await else {
        panic!("it is refused");
    };
    assert!(
        reason.contains("WRONGPASS") || reason.contains("uthenticat"),
        "{reason}"
    );
    assert!(!reason.contains("wr0ng"), "{reason}");
}

/// Deployments that share a server under different prefixes do not see each other's events.
#[tokio::test]
async fn prefixes_keep_deployments_apart() {
    let (one, two) = (Keyspace::fresh(), Keyspace::fresh());
    let bus = async |keys: &Keyspace| {
        open(
            config(keys.url())
                .prefix(keys.prefix())
                .expect("is a prefix"),
        )
        .await
    };
    let (one, two) = (bus(&one).await, bus(&two).await);
    let events = events(2);
    let mut reader = subscribe(&two, events[0].execution_id, 0).await;
    let mut wakes = two.wakes().await.expect("listens");
    publish(&one, &events[..1]).await;
    one.wake(docg_core::ids::ExecutionId::new())
        .await
        .expect("wakes");
    // If bus `two` saw what bus `one` wrote, its listener would first get the other wake-up.
    publish(&two, &events).await;
    two.wake(events[0].execution_id).await.expect("wakes");
    assert_eq!(next(&mut reader, 2).await, [1, 2]);
    assert_eq!(soon(wakes.next()).await, Some(events[0].execution_id));
}

#[cfg(feature = "tls")]
mod tls {
    use std::path::Path;

    use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};

    #[cfg(feature = "cluster")]
    use docg_test_servers::redis::PrivateCluster;

    use super::*;

    fn certificate() -> CertifiedKey<KeyPair> {
        generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("makes a certificate")
    }

    /// The settings of a server that shows this certificate, and asks clients for none.
    fn settings(CertifiedKey { cert, signing_key }: &CertifiedKey<KeyPair>, dir: &Path) -> String {
        let write = |name: &str, pem: String| {
            let path = dir.join(name);
            std::fs::write(&path, pem).expect("writes");
            path.display().to_string()
        };
        format!(
            "tls-auth-clients no\ntls-cert-file {0}\ntls-key-file {1}\ntls-ca-cert-file {0}\n",
            write("cert.pem", cert.pem()),
            write("key.pem", signing_key.serialize_pem()),
        )
    }

    /// A server that accepts only TLS, and its certificate in PEM.
    fn server() -> (PrivateServer, String) {
        let certificate = certificate();
        let server = PrivateServer::start_with(|dir| {
            let settings = settings(&certificate, dir);
            format!("port 0\ntls-port {{port}}\n{settings}")
        });
        (server, certificate.cert.pem())
    }

    fn config(server: &PrivateServer) -> RedisConfig {
        super::config(&format!("rediss://127.0.0.1:{}", server.port()))
    }

    #[tokio::test]
    async fn a_server_that_a_given_authority_vouches_for_is_trusted() {
        let (server, certificate) = server();
        assert_works(&*open(config(&server).root_certificates(certificate)).await).await;
    }

    /// A cluster whose servers use TLS among themselves. A client that came by TLS is redirected from one
    /// server to another by TLS.
    #[cfg(feature = "cluster")]
    fn cluster() -> (PrivateCluster, RedisConfig, String) {
        let certificate = certificate();
        let cluster = PrivateCluster::start_with(3, |dir| {
            let settings = settings(&certificate, dir);
            format!("tls-port {{tls-port}}\ntls-cluster yes\n{settings}")
        });
        let port = cluster.servers()[0].tls_port();
        let config = super::config(&format!("rediss+cluster://127.0.0.1:{port}"));
        (cluster, config, certificate.cert.pem())
    }

    #[cfg(feature = "cluster")]
    #[tokio::test]
    async fn a_cluster_that_a_given_authority_vouches_for_is_trusted() {
        let (_cluster, config, certificate) = cluster();
        let bus = open(config.root_certificates(certificate)).await;
        // Repeat with other executions, so that each server has some of their streams.
        for _ in 0..20 {
            assert_works(&bus).await;
        }
    }

    #[cfg(feature = "cluster")]
    #[tokio::test]
    async fn a_cluster_that_nobody_vouches_for_is_not() {
        let (_cluster, config, _) = cluster();
        let bus = RedisBus::open(config).expect("is a configuration");
        let refused = soon(bus.publish(&events(1))).await;
        assert!(
            matches!(refused, Err(BusError::Unavailable(_))),
            "{refused:?}"
        );
        let refused = soon(bus.subscribe(events(1)[0].execution_id, 0)).await;
        assert!(matches!(refused, Err(BusError::Unavailable(_))));
    }

    #[tokio::test]
    async fn a_server_that_nobody_vouches_for_is_not() {
        let (server, _) = server();
        let bus = RedisBus::open(config(&server)).expect("is a configuration");
        let refused = soon(bus.publish(&events(1))).await;
        assert!(
            matches!(refused, Err(BusError::Unavailable(_))),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn certificates_that_are_none_are_refused() {
        let config = RedisConfig::new("rediss://127.0.0.1").expect("is a URL");
        let error = RedisBus::open(config.client_certificate("no", "PEM")).expect_err("is refused");
        assert!(error.to_string().contains("PEM"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_nobody_answers_at_costs_no_more_than_the_timeout() {
    // A listener that accepts no connections.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = silent.local_addr().expect("is bound").port();
    let config = RedisConfig::new(&format!("redis://127.0.0.1:{port}")).expect("is a URL");
    let bus = RedisBus::open(config).expect("is a configuration");
    let began = std::time::Instant::now();
    assert!(bus.publish(&events(1)).await.is_err());
    assert!(bus.subscribe(events(1)[0].execution_id, 0).await.is_err());
    // Without the timeout, connecting would take minutes.
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
}
