//! Files over HTTP: those of the package, those of a host package, and those of a device's own web server.

pub(in crate::server) mod assets;
pub(in crate::server) mod device_files;
