//! Renews the leases of this process in time.

use crate::engine::Inner;

/// Renews the leases of all executions that this process holds. A lease is marked as lost if the store says
/// so, or if the store does not answer before the lease ends.
pub(super) async fn renew(inner: &Inner) {
    let lease = inner.options.lease;
    loop {
        tokio::select! {
            () = inner.clock.sleep(lease / 3) => {}
            () = first_lease_ends(inner) => {}
        }
        let ended = inner.active.leases_until(inner.clock.elapsed());
        ended.into_iter().for_each(|lease| inner.lose(lease));
        let mut leases = inner.active.leases();
        if leases.is_empty() {
            continue;
        }
        let until = inner.clock.elapsed() + inner.options.relied_on();
        tokio::select! {
            biased;
            renewed = inner.store.renew(&leases, inner.now() + lease) => match renewed {
                Ok(renewed) => {
                    inner.warnings.renewing.is_over();
                    leases.retain(|lease| !renewed.unknown.contains(lease));
                    inner.active.prolong(&leases, until);
                    renewed.lost.into_iter().for_each(|lease| inner.lose(lease));
                    // The wake-up by the signal's sender may not have reached this process.
                    for lease in renewed.signaled {
                        inner.active.notify(lease.execution_id);
                    }
                }
                Err(error) => inner.warnings.renewing.happened(&error),
            },
            () = first_lease_ends(inner) => tracing::warn!("leases were not renewed in time"),
        }
    }
}

/// Returns once the first of the held leases ends.
async fn first_lease_ends(inner: &Inner) {
    match inner.active.first_end() {
        Some(end) => {
            let left = end.saturating_sub(inner.clock.elapsed());
            inner.clock.sleep(left).await;
        }
        None => std::future::pending().await,
    }
}
