//! Sentinels: they know which server is the master.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError, RedisResult, Value, cmd};
use rustls::ClientConfig;
use tokio_util::task::AbortOnDropHandle;

use super::stream::{self, DialError};
use super::url::{DEFAULT_USER, Host, Login, Target};

/// Asks a Sentinel for the address of the master `name`. `None` if it does not know the name.
pub(super) async fn master_address(
    sentinel: &Host,
    tls: Option<&Arc<ClientConfig>>,
    target: &Target,
    name: &str,
) -> Result<Option<Host>, SentinelError> {
    let stream = stream::dial(sentinel, tls).await.map_err(SentinelError::Dial)?;
    // The timers of the runtime are not there: the caller has the deadline.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let setup = RedisConnectionInfo::default().set_skip_set_lib_name();
    let made = MultiplexedConnection::new_with_config(&setup, stream, config).await;
    let (mut connection, driver) = made.map_err(SentinelError::Redis)?;
    let _task = AbortOnDropHandle::new(tokio::spawn(driver));
    let answer = ask(&mut connection, target, name).await.map_err(SentinelError::Redis)?;
    Ok(address(&answer))
}

/// Asks for the master, with the login of the Sentinels. One that asks for a password, and is given none, is told that of
/// the engine: many services have one for both.
async fn ask(connection: &mut MultiplexedConnection, target: &Target, name: &str) -> RedisResult<Value> {
    if let Some(login) = &target.sentinel_login {
        log_in(connection, login).await?;
    }
    let mut question = cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(name);
    match (question.query_async(connection).await, &target.sentinel_login, target.login()) {
        (Err(error), None, Some(login)) if error.code() == Some("NOAUTH") => {
            log_in(connection, &login).await?;
            question.query_async(connection).await
        }
        (answer, ..) => answer,
    }
}

/// Gives a Sentinel a login. One before Redis 6.2 has no users, and takes a password alone.
async fn log_in(connection: &mut MultiplexedConnection, login: &Login) -> RedisResult<()> {
    match cmd("AUTH").arg(&login.user).arg(&login.password).query_async(connection).await {
        Err(error) if has_no_users(&error) && login.user == DEFAULT_USER => {
            match cmd("AUTH").arg(&login.password).query_async(connection).await {
                // A Sentinel of Redis 6.2 or later takes any password as well where it asks for none.
                Err(error) if says(&error, "without any password configured") => Ok(()),
                answer => answer,
            }
        }
        answer => answer,
    }
}

/// Returns whether a Sentinel refuses a login because it has no users.
pub(super) fn has_no_users(error: &RedisError) -> bool {
    says(error, "wrong number of arguments for 'auth'")
}

fn says(error: &RedisError, words: &str) -> bool {
    error.detail().is_some_and(|detail| detail.contains(words))
}

/// The reason why a Sentinel did not answer.
pub(super) enum SentinelError {
    Dial(DialError),
    Redis(RedisError),
}

fn address(answer: &Value) -> Option<Host> {
    let Value::Array(parts) = answer else { return None };
    let [Value::BulkString(name), Value::BulkString(port)] = parts.as_slice() else { return None };
    let name = String::from_utf8(name.clone()).ok()?;
    Some(Host { name, port: std::str::from_utf8(port).ok()?.parse().ok()? })
}
