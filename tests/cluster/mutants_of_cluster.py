"""The mutants of a cluster: each takes one defence out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A place in the source, and the fault that stands there: `{off}` is true while the mutant runs."""

    name: str
    file: str
    text: str
    instead: str
    kept: bool = False
    """Whether other defences hold all that the world checks without it: the reason stands in `why`."""
    why: str = ""
    test: str = ""
    """The test of one node that finds it, where other defences repair within seconds what the world would check."""
    schedules: int = 0
    """The number of schedules in which it was found, if it takes more than the default."""


CLUSTER = "src/core/cluster/"
HISTORY = CLUSTER + "history.rs"
MEMBERSHIP = CLUSTER + "membership.rs"
SHARED_ICE = CLUSTER + "shared_ice.rs"
WORLD = "tests/cluster/"


def of_secrets(name: str, text: str, instead: str) -> Mutant:
    """A mutant of the signing with another secret."""
    return Mutant(f"secret: {name}", SHARED_ICE, text, instead, test="shared_ice::")


MUTANTS = [
    # One holder per id.
    Mutant(
        "epoch",
        CLUSTER + "maintaining.rs",
        "self.epoch != Some(epoch) ||",
        "(!{off} && self.epoch != Some(epoch)) ||",
        test="a_page_of_another_registry_is_not_taken_over",
    ),
    Mutant(
        "lost writes",
        CLUSTER + "maintaining.rs",
        "|| self.directory.has_lost()",
        "|| (!{off} && self.directory.has_lost())",
    ),
    Mutant(
        "word of a registry that has lost writes",
        CLUSTER + "claiming.rs",
        "matches!(claimed, Claimed::Held { .. }) && self.directory.has_lost()",
        "matches!(claimed, Claimed::Held {{ .. }}) && self.directory.has_lost() && !{off}",
        test="what_a_registry_that_has_lost_writes_says",
    ),
    Mutant(
        "page of another registry",
        MEMBERSHIP,
        "Reply::Page { epoch, .. }) if self.has_lost(epoch) =>",
        "Reply::Page {{ epoch, .. }}) if self.has_lost(epoch) && !{off} =>",
        test="a_page_of_another_registry_is_not_taken_over",
    ),
    Mutant(
        "number that is less than one before",
        HISTORY,
        "if version.number < asked {",
        "if version.number < asked && !{off} {{",
        test="a_registry_that_is_behind_a_change_is_noticed",
    ),
    Mutant(
        "number that is less than one that an answer has named",
        HISTORY,
        "self.named.last_key_value().map_or(",
        "self.named.last_key_value().filter(|_| !{off}).map_or(",
        test="a_registry_that_is_behind_an_answer",
    ),
    Mutant(
        "stamp of a version that is known",
        HISTORY,
        "Some(stamp) => self.lost |= stamp != version.stamp,",
        "Some(stamp) => self.lost |= stamp != version.stamp && !{off},",
        test="a_registry_that_has_as_many_versions_again",
    ),
    Mutant(
        "stamp of a change that comes again",
        HISTORY,
        "self.stamp_of(version.number).is_some_and(|stamp| stamp",
        "self.stamp_of(version.number).filter(|_| !{off}).is_some_and(|stamp| stamp",
        kept=True,
        why="the next renewal names the number with the other stamp, or a later change names another one before it",
    ),
    Mutant(
        "stamp before a change",
        HISTORY,
        "self.lost |= after != latest.stamp;",
        "self.lost |= after != latest.stamp && !{off};",
        test="a_change_that_follows_another_version",
    ),
    Mutant(
        "version that an answer has named",
        HISTORY,
        "named.is_some_and(|stamp| *stamp != version.stamp)",
        "named.is_some_and(|stamp| *stamp != version.stamp && !{off})",
        test="a_change_of_this_node_that_the_registry_has_lost",
    ),
    Mutant(
        "writes behind missing changes",
        CLUSTER + "maintaining.rs",
        "if self.directory.take_unproven() {",
        "if self.directory.take_unproven() && !{off} {{",
        test="a_node_that_misses_changes_writes_again",
    ),
    Mutant(
        "version of an announcement",
        WORLD + "engine.rs",
        "        if changed {\n            self.change(Change::Announced);",
        "        if changed && !{off} {{\n            self.change(Change::Announced);",
    ),
    Mutant(
        "outcome before the device",
        CLUSTER + "announcing.rs",
        "self.announcements.asked.get_mut(&pending.number) {",
        "self.announcements.asked.get_mut(&pending.number).filter(|_| !{off}) {{",
        schedules=100_000,
    ),
    Mutant(
        "versions before a pass",
        CLUSTER + "directory.rs",
        "        self.confirm_none();\n        self.incomplete = false;",
        "        if !{off} {{ self.confirm_none(); }}\n        self.incomplete = false;",
        test="a_pass_replaces_what_an_engine_has_lost_that_names_versions_again",
    ),
    Mutant(
        "expected",
        WORLD + "engine.rs",
        "Some(holder) if Some(&holder) != expected =>",
        "Some(holder) if Some(&holder) != expected && !({off} && expected.is_some()) =>",
    ),
    Mutant("settle", WORLD + "engine.rs", "None if now < settled =>", "None if now < settled && !{off} =>"),
    Mutant(
        "contradiction",
        CLUSTER + "claim.rs",
        "match contradicted.filter(|holder|",
        "match contradicted.filter(|_| !{off}).filter(|holder|",
    ),
    Mutant(
        "lease renewed meanwhile",
        CLUSTER + "claim.rs",
        "return self.ask(None);",
        "let gone = match &self.state {{\n"
        "                State::Probing {{ holder, .. }} if {off} => Some(holder.clone()),\n"
        "                _ => None,\n            }};\n            return self.ask(gone);",
    ),
    Mutant(
        "probe before replacing",
        CLUSTER + "claim.rs",
        "        if self.holders.is_unreachable(&holder) {\n",
        "        if {off} {{ return self.ask(Some(holder)); }}\n        if self.holders.is_unreachable(&holder) {{\n",
    ),
    Mutant(
        "answer of a living holder",
        WORLD + "node.rs",
        "Ok(()) => Probe::Alive,",
        "Ok(()) => if {off} {{ Probe::Gone }} else {{ Probe::Alive }},",
    ),
    Mutant(
        "reclaim",
        MEMBERSHIP,
        "        self.reclaim_all(now);\n",
        "        if !{off} {{ self.reclaim_all(now); }}\n",
        test="held_ids_are_reclaimed_before_anything_is_read",
    ),
    Mutant(
        "upkeep",
        CLUSTER + "maintaining.rs",
        "        self.reclaim_some(now);\n        self.announce_some(now);\n",
        "        if {off} {{ return; }}\n        self.reclaim_some(now);\n        self.announce_some(now);\n",
    ),
    Mutant(
        "entry of another holder",
        CLUSTER + "claiming.rs",
        "Some(entry) if entry.registration != own =>",
        "Some(entry) if entry.registration != own && !{off} =>",
        test="the_entry_of_another_holder_ends_the_session",
    ),
    Mutant(
        "facts that change during a join",
        CLUSTER + "maintaining.rs",
        "if *named != self.node.details {",
        "if *named != self.node.details && !{off} {{",
        test="facts_that_change_while_the_node_joins",
    ),
    Mutant(
        "record of a node that had no lease",
        CLUSTER + "nodes.rs",
        "before.contains(node) && self",
        "(before.contains(node) || {off}) && self",
        schedules=25_000,
    ),
    Mutant(
        "records of nodes whose change is missing",
        CLUSTER + "maintaining.rs",
        "        self.directory.begin_scan();\n        self.read_nodes(now);\n",
        "        self.directory.begin_scan();\n        if !{off} {{ self.read_nodes(now); }}\n",
    ),
    # Nodes that come back together.
    Mutant(
        "jitter of a join",
        MEMBERSHIP,
        "longest.mul_f64(self.rng.f64())",
        "if {off} {{ longest }} else {{ longest.mul_f64(self.rng.f64()) }}",
        test="a_crowd_of_nodes_that_loses_the_engine_comes_back_one_after_another",
    ),
    Mutant(
        "jitter of a pass",
        MEMBERSHIP,
        "if first { Duration::ZERO }",
        "if first || {off} {{ Duration::ZERO }}",
        test="a_crowd_of_nodes_that_has_joined_again_does_not_read_the_registry_at_once",
    ),
    # Another secret.
    of_secrets(
        "ids",
        "        if self.is_member() {\n            self.reclaim_all(now);\n",
        "        if self.is_member() {{\n            if !{off} {{ self.reclaim_all(now); }}\n",
    ),
    of_secrets(
        "announcements",
        "            self.announce_all(now);\n            self.look_for_ice(now);\n",
        "            if !{off} {{ self.announce_all(now); }}\n            self.look_for_ice(now);\n",
    ),
    of_secrets(
        "record of the node",
        "            self.send_record(now);\n",
        "            if !{off} {{ self.send_record(now); }}\n",
    ),
    of_secrets(
        "ICE servers",
        "            self.send(Operation::SealIce, Asked::SealIce, now);\n",
        "            if !{off} {{ self.send(Operation::SealIce, Asked::SealIce, now); }}\n",
    ),
    of_secrets(
        "answer to an earlier one",
        "if !self.is_asking(|asked| matches!(asked, Asked::SealIce)) &&",
        "if ({off} || !self.is_asking(|asked| matches!(asked, Asked::SealIce))) &&",
    ),
    of_secrets(
        "all operations before",
        "self.in_flight.keys().next().is_none_or(|oldest| *oldest > until)",
        "({off} || self.in_flight.keys().next().is_none_or(|oldest| *oldest > until))",
    ),
    of_secrets(
        "claims under way",
        "            if !again {",
        "            if !again || {off} {{",
    ),
    of_secrets(
        "announcements under way",
        "            self.announce_all(now);\n            self.ice.signing",
        "            if !{off} {{ self.announce_all(now); }}\n            self.ice.signing",
    ),
    of_secrets(
        "loss of the engine",
        "self.ice.seals |= self.ice.signing.take().is_some();",
        "self.ice.seals |= self.ice.signing.take().is_some() && !{off};",
    ),
    of_secrets(
        "another one meanwhile",
        "(self.ice.seals, self.ice.signing) = (true, None);",
        "(self.ice.seals, self.ice.signing) = (true, self.ice.signing.take().filter(|_| {off}));",
    ),
    # Which process a connection ends at.
    Mutant(
        "incarnation",
        WORLD + "dispatch.rs",
        "Some(process) if process.incarnation == incarnation =>",
        "Some(process) if process.incarnation == incarnation || {off} =>",
        kept=True,
        why="the client of a new process gets the device info of its device",
    ),
    Mutant(
        "closing after a pause",
        MEMBERSHIP,
        "self.output(Output::CloseProxied);",
        "if !{off} {{ self.output(Output::CloseProxied); }}",
        kept=True,
        why="the other nodes close their ends after the silence",
    ),
    Mutant(
        "silence of a node",
        WORLD + "dispatch.rs",
        "if self.met[by][of] == met =>",
        "if self.met[by][of] == met && !{off} =>",
    ),
    # Findable.
    Mutant(
        'read before "not found"',
        WORLD + "locate.rs",
        "_ if last => self.read(client, net),\n            _ => self.found",
        "_ if last && !{off} => self.read(client, net),\n            _ => self.found",
    ),
    Mutant(
        "absence in an engine that has lost devices",
        CLUSTER + "maintaining.rs",
        "self.epoch == Some(*epoch) && follows && self.upkeep.absence_counts_at <= now",
        "{off} || self.epoch == Some(*epoch) && follows && self.upkeep.absence_counts_at <= now",
    ),
    Mutant(
        "waking of clients",
        WORLD + "outputs.rs",
        "Output::Appeared(ids) => ids.iter().for_each(|id| process.hub.wake_waiting(id)),",
        "Output::Appeared(ids) => ids.iter().filter(|_| !{off}).for_each(|id| process.hub.wake_waiting(id)),",
    ),
    # Messages across nodes.
    Mutant(
        "texts before the start",
        "src/core/session/upstream.rs",
        "self.on_opened.is_none() && self.link.holds_texts()",
        "!{off} && self.on_opened.is_none() && self.link.holds_texts()",
    ),
    Mutant(
        "start signal",
        "src/core/upstream.rs",
        "        self.device.outbox.wake_session();\n",
        "        if !{off} {{ self.device.outbox.wake_session(); }}\n",
    ),
    Mutant(
        "client of a lost connection",
        "src/core/session/upstream.rs",
        "            _ if stage != Stage::Started => {}",
        "            _ if stage != Stage::Started || {off} => {{}}",
    ),
    Mutant(
        "order",
        "src/core/outbox/queue.rs",
        "self.messages.push_back(message);",
        "if {off} && self.messages.len() == 3 {{ self.messages.push_front(message) }}\n"
        "        else {{ self.messages.push_back(message) }};",
    ),
    Mutant(
        "at most once",
        "src/core/session/upstream.rs",
        "        if self.client.push_forward(message, Passage::Direct, now).is_err() {",
        "        if {off} {{ let _ = self.client.push_forward(message.clone(), Passage::Copy, now); }}\n"
        "        if self.client.push_forward(message, Passage::Direct, now).is_err() {{",
    ),
    Mutant(
        "at most once, after a loss",
        "src/core/outbox/mod.rs",
        "        if state.end.is_some() || !is_allowed(&state) {",
        "        if (state.end.is_some() && !{off}) || !is_allowed(&state) {{",
    ),
    Mutant(
        "nothing after client_disconnected",
        "src/core/outbox/mod.rs",
        "self.enqueue(message, |_| sender.load(Ordering::Acquire))",
        "self.enqueue(message, |_| {off} || sender.load(Ordering::Acquire))",
        kept=True,
        why="a race of two threads, which tests/interleavings.rs schedules: the world has one",
    ),
    # Ledgers.
    Mutant(
        "ledger: rest of an outbox",
        "src/core/driver/mod.rs",
        "ledger().count_gone(gone);",
        "ledger().count_gone(if {off} {{ 0 }} else {{ gone }});",
    ),
    Mutant(
        "ledger: from another node",
        "src/core/session/upstream.rs",
        "        ledger.count_accepted();\n",
        "        if !{off} {{ ledger.count_accepted(); }}\n",
    ),
    Mutant(
        "ledger: client that has left",
        "src/core/session/upstream.rs",
        "            ledger.count_gone(1);\n",
        "            if !{off} {{ ledger.count_gone(1); }}\n",
        kept=True,
        why="a race of two threads: in one thread the connection is gone by then",
    ),
    Mutant(
        "ledger: to another node",
        "src/core/upstream.rs",
        "            relay.ledger().count_gone(1);\n",
        "            if !{off} {{ relay.ledger().count_gone(1); }}\n",
    ),
    Mutant(
        "ledger: silent loss between nodes",
        "src/core/session/upstream.rs",
        "            None if self.link.is_started() => self.pass_on(text, now),",
        '            None if {off} && text.ends_with("3\\"}}") => {{}}\n'
        "            None if self.link.is_started() => self.pass_on(text, now),",
    ),
]
