//! Files over HTTP: the server's own, those of a host package, and those of a device's web server.

pub(in crate::server) mod assets;
pub(in crate::server) mod device_files;
mod device_target;
