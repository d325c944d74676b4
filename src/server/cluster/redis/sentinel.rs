//! Sentinels: they know which server is the master.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, Value, cmd};
use rustls::ClientConfig;
use tokio_util::task::AbortOnDropHandle;

use super::stream::{self, DialError};
use super::url::Host;

/// Asks a Sentinel for the address of a master. `None` if it does not know the name.
pub(super) async fn master_address(
    sentinel: &Host,
    tls: Option<&Arc<ClientConfig>>,
    name: &str,
) -> Result<Option<Host>, SentinelError> {
    let stream = stream::dial(sentinel, tls).await.map_err(SentinelError::Dial)?;
    // The timers of the runtime are not there: the caller has the deadline.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let setup = RedisConnectionInfo::default().set_skip_set_lib_name();
    let made = MultiplexedConnection::new_with_config(&setup, stream, config).await;
    let (mut connection, driver) = made.map_err(SentinelError::Redis)?;
    let _task = AbortOnDropHandle::new(tokio::spawn(driver));
    let mut question = cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(name);
    let answer: Value = question.query_async(&mut connection).await.map_err(SentinelError::Redis)?;
    Ok(address(&answer))
}

/// The reason why a Sentinel did not answer.
pub(super) enum SentinelError {
    Dial(DialError),
    Redis(redis::RedisError),
}

fn address(answer: &Value) -> Option<Host> {
    let Value::Array(parts) = answer else { return None };
    let [Value::BulkString(name), Value::BulkString(port)] = parts.as_slice() else { return None };
    let name = String::from_utf8(name.clone()).ok()?;
    Some(Host { name, port: std::str::from_utf8(port).ok()?.parse().ok()? })
}
