//! The TTL store: small values that expire.

use async_trait::async_trait;
use docg_core::{
    ids::OrganizationId,
    ports::{StoreError, TtlEntry, TtlKey, TtlStore},
    time::Timestamp,
};
use uuid::Uuid;

use super::PgStore;
use crate::{
    codec::{Time, json_field, time},
    database::arguments,
    error::Error,
};

/// The maximum number of tries to write an entry. A statement sees the rows as of its start, so only a
/// repeated try finds an entry that another process has just written.
const TRIES: usize = 5;

fn organization(id: Option<OrganizationId>) -> Uuid {
    id.map_or(Uuid::nil(), |id| id.0)
}

impl PgStore {
    async fn put_entry(
        &self,
        entry: &TtlEntry,
        now: Option<Timestamp>,
    ) -> Result<Option<TtlEntry>, Error> {
        let key = self.encoder.text("key", &entry.key.key)?;
        let value = self.encoder.json("value", &entry.value)?;
        let sql = "WITH put AS (
                INSERT INTO docg.memos AS m (organization_id, kind, key, value, expires_at)
                VALUES ($1, $2, $3, $4::text::json, $5)
                ON CONFLICT (organization_id, kind, key) DO UPDATE
                SET value = excluded.value, expires_at = excluded.expires_at
                WHERE $6::timestamptz IS NULL OR m.expires_at <= $6
                RETURNING 1)
            SELECT true AS is_put, NULL::text AS value, NULL::timestamptz AS expires_at FROM put
            UNION ALL
            SELECT false, value::text, expires_at FROM docg.memos
            WHERE organization_id = $1 AND kind = $2 AND key = $3 AND NOT EXISTS (SELECT FROM put)";
        for _ in 0..TRIES {
            let parameters = arguments![
                organization(entry.key.organization_id),
                entry.key.kind,
                key.clone(),
                value.clone(),
                Time::from(entry.expires_at),
                now.map(Time::from),
            ];
            if let Some(row) = self.database.write(sql, parameters).await?.first() {
                let is_put: bool = crate::codec::field(row, "is_put")?;
                return if is_put {
                    Ok(None)
                } else {
                    Ok(Some(TtlEntry {
                        key: entry.key.clone(),
                        value: json_field(row, "value")?,
                        expires_at: time(row, "expires_at")?,
                    }))
                };
            }
        }
        Err(Error::Conflict("an entry came and went".to_owned()))
    }

    async fn find_entry(&self, key: &TtlKey, now: Timestamp) -> Result<Option<TtlEntry>, Error> {
        let sql = "SELECT value::text, expires_at FROM docg.memos
            WHERE organization_id = $1 AND kind = $2 AND key = $3 AND expires_at > $4";
        let parameters = arguments![
            organization(key.organization_id),
            key.kind,
            self.encoder.text("key", &key.key)?,
            Time::from(now),
        ];
        let rows = self.database.read(sql, parameters).await?;
        rows.first()
            .map(|row| {
                Ok(TtlEntry {
                    key: key.clone(),
                    value: json_field(row, "value")?,
                    expires_at: time(row, "expires_at")?,
                })
            })
            .transpose()
    }
}

#[async_trait]
impl TtlStore for PgStore {
    async fn remember(
        &self,
        entry: TtlEntry,
        now: Timestamp,
    ) -> Result<Option<TtlEntry>, StoreError> {
        let put = self.put_entry(&entry, Some(now)).await;
        put.map_err(|e| e.at("remember"))
    }

    async fn recall(&self, key: &TtlKey, now: Timestamp) -> Result<Option<TtlEntry>, StoreError> {
        self.find_entry(key, now).await.map_err(|e| e.at("recall"))
    }

    async fn replace(&self, entry: TtlEntry) -> Result<(), StoreError> {
        let put = self.put_entry(&entry, None).await;
        put.map(|_| ()).map_err(|e| e.at("replace"))
    }
}
