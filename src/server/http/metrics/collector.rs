//! The metric families: name, type, help text and samples of each.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;

use crate::config::tls::Tls;
use crate::observe::adb::AdbReading;
use crate::observe::cluster::ClusterCounts;
use crate::observe::incidents::Incident;
use crate::observe::ledger::LedgerReading;
use crate::observe::timings::FORWARDS_PER_SAMPLE;
use crate::server::cluster::handle::Cluster;
use crate::server::http::dashboard::overview::Overviews;
use crate::server::http::listing::Listings;
use crate::server::shared::Shared;

/// The places that count. Each answer reads them anew.
pub(super) struct Collected {
    /// The counters of the server.
    pub(super) shared: Arc<Shared>,
    /// Counts the rendered entries of lists.
    pub(super) listings: Arc<Listings>,
    /// Counts the rendered overviews.
    pub(super) overviews: Arc<Overviews>,
}

impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collected").finish_non_exhaustive()
    }
}

impl Collector for Collected {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        self.server(&mut page)?;
        self.peers(&mut page)?;
        self.forwards(&mut page)?;
        self.requests(&mut page)?;
        self.hooks(&mut page)?;
        self.adb(&mut page)?;
        let devices = self.shared.hub.device_count();
        self.shared.cluster.as_ref().map_or(Ok(()), |cluster| Self::cluster(&mut page, cluster, devices))
    }
}

impl Collected {
    /// The process and its certificate.
    fn server(&self, page: &mut Page<'_>) -> fmt::Result {
        let versions = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("rust", env!("CUTTLEFISH_SIGNALING_RUSTC")),
            ("python", self.shared.python.get().map_or("", String::as_str)),
        ];
        page.family("build", "Versions of the package, of the Rust compiler and of Python.", MetricType::Info)?
            .encode_info(&versions)?;
        page.gauge("start_time_seconds", "Start time of the server, in seconds since 1970.", &self.shared.started)?;
        let expiry = self.shared.settings().tls.as_ref().and_then(Tls::expires_at);
        if let Some(expiry) = expiry {
            let help = "End of validity of the certificate of the listeners, in seconds since 1970.";
            page.gauge("certificate_expiry_timestamp_seconds", help, &expiry)?;
        }
        Ok(())
    }

    /// The peers. They are counters: no list of the hub is walked.
    fn peers(&self, page: &mut Page<'_>) -> fmt::Result {
        let hub = &self.shared.hub;
        page.gauge("connections", "Connected peers, registered or not.", &hub.connections())?;
        page.gauge("devices", "Registered devices.", &hub.device_count())?;
        page.gauge("clients", "Clients connected to a device.", &hub.client_count())?;
        page.gauge("waiting_clients", "Clients that wait for a device to register.", &hub.waiting_count())?;
        let help = "Waits of clients for a device that was not registered, until the client had its device info.";
        page.histograms("device_wait_seconds", help, [("", "", self.shared.timings.device_waits())])
    }

    /// The forwards.
    fn forwards(&self, page: &mut Page<'_>) -> fmt::Result {
        let LedgerReading { accepted, delivered, refused, gone, dropped } = self.shared.relay.ledger().read();
        page.counters("forwards_accepted", "Forwards accepted from peers.", [([], accepted)])?;
        let outcomes = [("delivered", delivered), ("refused", refused), ("gone", gone), ("dropped", dropped)];
        let samples = outcomes.map(|(outcome, count)| ([("outcome", outcome)], count));
        page.counters("forwards", "Forwards by outcome.", samples)?;
        let help = "Addresses of devices' candidates that were rewritten.";
        page.counters("addresses_rewritten", help, [([], self.shared.relay.addresses_rewritten())])?;
        let help = format!(
            "Times of forwards in the server, until their receiver's connection has taken them. One of \
             {FORWARDS_PER_SAMPLE} is timed."
        );
        page.histograms("forward_queue_seconds", &help, [("", "", self.shared.timings.queues())])?;
        let incidents =
            Incident::ALL.map(|incident| ([("kind", incident.as_str())], self.shared.incidents.of(incident)));
        page.counters("incidents", "Incidents by kind, such as refused or dropped connections.", incidents)
    }

    /// The requests.
    fn requests(&self, page: &mut Page<'_>) -> fmt::Result {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        let counts = self.shared.requests.read().filter_map(|(endpoint, class, count)| {
            Some(([("endpoint", endpoint), ("status", *classes.get(class.checked_sub(1)?)?)], count))
        });
        let help = "HTTP requests answered, upgrades included, by endpoint and status class.";
        page.counters("http_requests", help, counts)?;
        let handshakes = self.shared.timings.handshakes().map(|(kind, times)| ("kind", kind, times));
        let help = "Times of completed handshakes: of TLS, and of WebSockets with `authorize`.";
        page.histograms("handshake_seconds", help, handshakes)?;
        let dropped = self.shared.audit.as_ref().map_or(0, |audit| audit.dropped());
        let help = "Records of the audit log that were not written, since the queue was full or the file failed.";
        page.counters("audit_dropped", help, [([], dropped)])?;
        let rendered = [("device_entry", self.listings.rendered()), ("overview", self.overviews.rendered())];
        let help = "Renderings: of entries of GET /devices, and of overviews of dashboards.";
        page.counters("renderings", help, rendered.map(|(of, count)| ([("of", of)], count)))
    }

    /// The hooks.
    fn hooks(&self, page: &mut Page<'_>) -> fmt::Result {
        let calls = self.shared.timings.hook_calls();
        let samples = calls.map(|(hook, outcome, count)| ([("hook", hook), ("outcome", outcome)], count));
        page.counters("hook_calls", "Calls of hooks by outcome.", samples)?;
        let times = self.shared.timings.hooks().map(|(hook, times)| ("hook", hook, times));
        let help = "Times from the call of a hook to its answer, the wait for a thread included.";
        page.histograms("hook_seconds", help, times)
    }

    /// The adb connections.
    fn adb(&self, page: &mut Page<'_>) -> fmt::Result {
        let AdbReading { open, refused, to_device, from_device } = self.shared.adb.read();
        page.gauge("adb_connections", "Open adb connections.", &open)?;
        let help = "Requests for adb that were closed without a connection to a device.";
        page.counters("adb_refused", help, [([], refused)])?;
        let directions = [("to_device", to_device), ("from_device", from_device)];
        let samples = directions.map(|(direction, count)| ([("direction", direction)], count));
        page.counters("adb_bytes", "Bytes of adb connections, by direction.", samples)
    }
}

impl Collected {
    /// The node of a cluster.
    fn cluster(page: &mut Page<'_>, cluster: &Cluster, devices_here: usize) -> fmt::Result {
        let (is_member, nodes, draining, devices, version) = cluster.read(|membership| {
            let details = |node| membership.nodes().record(node).and_then(|record| cluster.details.of(record));
            let draining = membership.nodes().live().filter_map(details).filter(|details| details.draining).count();
            let directory = membership.directory();
            (membership.is_member(), membership.nodes().live().count(), draining, directory.len(), directory.version())
        });
        let help = "Whether the node is a member of its cluster, which needs the engine: 1 or 0.";
        page.gauge("cluster_member", help, &u64::from(is_member))?;
        page.gauge("cluster_nodes", "Nodes with a lease, those that drain included.", &nodes)?;
        page.gauge("cluster_nodes_draining", "Nodes with a lease that drain.", &draining)?;
        page.gauge("cluster_devices", "Devices of all nodes in the directory of this one.", &devices)?;
        page.gauge("cluster_version", "Version of the registry that this node has seen.", &version)?;
        let help = "Nodes of the version of this one that have other settings.";
        page.gauge("cluster_nodes_differing", help, &cluster.differing())?;
        let help = "Nodes with a lease that this one cannot reach.";
        page.gauge("cluster_nodes_unreachable", help, &cluster.survey.reach.unreachable())?;
        let help = "Seconds for which the registry could not be asked; 0 if it can be asked. Lists are as old as that.";
        let stale = cluster.stale_for().unwrap_or_default();
        page.gauge("cluster_stale_seconds", help, &stale.as_secs_f64())?;
        let help = "Devices of this node that the registry does not have for it, so that clients of other nodes do not find them.";
        page.gauge("cluster_unclaimed_devices", help, &devices_here.saturating_sub(cluster.claimed_count()))?;
        Self::cluster_counts(page, &cluster.counts)
    }

    fn cluster_counts(page: &mut Page<'_>, counts: &ClusterCounts) -> fmt::Result {
        let rejoins = counts.rejoins().map(|(cause, count)| ([("cause", cause)], count));
        page.counters("cluster_rejoins", "Losses of the membership, by cause.", rejoins)?;
        let claims = counts.claims().map(|(outcome, count)| ([("outcome", outcome)], count));
        page.counters("cluster_claims", "Claims of device ids, by outcome.", claims)?;
        let refused = counts.refused().map(|(status, count)| ([("status", status)], count));
        let help = "Requests on the listener for nodes that were refused, by status.";
        page.counters("cluster_requests_refused", help, refused)?;
        page.counters("cluster_resyncs", "Readings of the whole registry.", [([], counts.resyncs())])?;
        let help = "Times of operations of the engine.";
        page.histograms("cluster_engine_seconds", help, [("", "", counts.operations())])?;
        Self::proxied(page, counts)
    }

    /// The connections between nodes, for clients whose device is on another one.
    fn proxied(page: &mut Page<'_>, counts: &ClusterCounts) -> fmt::Result {
        let help = "Clients whose device is on another node, by the direction of their connection.";
        let mut family = page.family("cluster_proxied_clients", help, MetricType::Gauge)?;
        for (direction, count) in counts.proxied() {
            family.encode_family(&[("direction", direction)])?.encode_gauge(&count)?;
        }
        let messages = counts.messages().map(|(direction, count)| ([("direction", direction)], count));
        let help = "Forwards of clients of this node that were written for the node of their device, or came from it.";
        page.counters("cluster_proxied_messages", help, messages)?;
        let bytes = counts.bytes().map(|(direction, count)| ([("direction", direction)], count));
        let help = "Bytes of forwards of clients of this node for the node of their device, or from it.";
        page.counters("cluster_proxied_bytes", help, bytes)?;
        let help = "Forwards for the node of a device that were not written when the connection ended.";
        page.counters("cluster_proxied_gone", help, [([], counts.gone())])?;
        let ends = counts.ends().map(|(cause, count)| ([("cause", cause)], count));
        let help = "Connections of clients of this node to the node of their device that have ended, by cause.";
        page.counters("cluster_proxied_ended", help, ends)?;
        let connections = counts.connections().map(|(handshake, count)| ([("handshake", handshake)], count));
        let help = "Connections to other nodes that requests and clients of this one took, by their TLS handshake.";
        page.counters("cluster_connections", help, connections)
    }
}

/// Writes families of metrics.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// Begins a family. A counter has its name without `_total`.
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &'s str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    /// Writes a gauge without labels.
    fn gauge(&mut self, name: &str, help: &str, value: &impl EncodeGaugeValue) -> fmt::Result {
        self.family(name, help, MetricType::Gauge)?.encode_gauge(value)
    }

    /// Writes the counters of a family, each with its labels.
    fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'static str, &'static str); N], u64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Counter)?;
        for (labels, count) in samples {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        Ok(())
    }

    /// Writes the histograms of a family, each with a label. An empty name is no label.
    fn histograms<'h>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (&'static str, &'static str, &'h Histogram)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Histogram)?;
        for (label, value, histogram) in samples {
            if label.is_empty() {
                // An encoder cannot be lent twice, and there is one sample.
                return histogram.encode(family);
            }
            histogram.encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }
}
