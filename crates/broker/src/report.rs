//! What egress tells a session of its connections.

use loopd_domain::SessionId;
use loopd_domain::network::Connection;

/// Takes reports. Never blocks; a receiver that is too slow loses reports and is told how many.
pub trait Reports: Send + Sync {
    /// A connection has ended, or was refused.
    fn ended(&self, session: &SessionId, connection: Connection);
}
