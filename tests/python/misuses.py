"""Ways to misuse the fixtures of the plugin, and the words that the error of each has."""

from __future__ import annotations

MISUSES: dict[str, list[tuple[str, str]]] = {}
"""By fixture: source of a test, and a pattern of `fnmatch` for the line of its error. `%` stands for the fixture."""

SETTINGS = [
    ("port='x'", "port *: must be a whole number, got 'x'"),
    ("port=-1", "port *: must be between 0 and 65535, got -1"),
    ("port=True", "port *: must be a whole number, got True"),
    ("prot=1", "prot *: unknown setting; did you mean 'port'?"),
    ("zzz=1", "zzz *: unknown setting; known settings: host, *"),
    ("host=5", "host *: *5*"),
    ("host='no.such.host.invalid'", "host: 'no.such.host.invalid' is not an address and not a known name: *"),
    ("device_wait_timeout='soon'", "device_wait_timeout *: must be a number of seconds*, got 'soon'"),
    ("device_wait_timeout=-1", "device_wait_timeout *: must be a number of seconds*, got -1"),
    ("device_wait_timeout=float('nan')", "device_wait_timeout *: must be a number of seconds*, got nan"),
    ("on_duplicate='keep'", "on_duplicate *: *'keep'*"),
    ("ice_servers='stun:x'", "ice_servers *: expected a list of IceServer, got a value of type str"),
    ("ice_servers=[{'url': 5}]", "ice_servers*: *"),
    ("tls='cert.pem'", "tls *: *'cert.pem'*"),
    ("limits={'max_devices': 1}", "limits *: *max_devices*"),
    ("keepalive=10", "keepalive *: *10*"),
    ("authorize='token'", "authorize *: *'token'*"),
    ("filter_device_info=lambda: {}", "filter_device_info *: *"),
    ("allowed_origins='https://a'", "allowed_origins *: must be a list of strings, got 'https://a'"),
    ("journal='yes'", "journal *: *'yes'*"),
    ("cluster='redis://:secret@localhost'", "cluster *: must be a Cluster or None, got a value of type str"),
    ("cluster=True", "cluster *: must be a Cluster or None, got True"),
    ("workers=0", "workers *: must be between 1 and *, got 0"),
]

MISUSES["signaling_server"] = [
    (f"@pytest.mark.signaling({given})\ndef test_it(signaling_server):\n    pass", f"*ConfigError: %: {error}")
    if "invalid" not in given
    else (f"@pytest.mark.signaling({given})\ndef test_it(signaling_server):\n    pass", f"*BindError: %: {error}")
    for given, error in SETTINGS
] + [
    (
        "@pytest.mark.signaling(5)\ndef test_it(signaling_server):\n    pass",
        "*takes keyword arguments only, got (5,); *",
    ),
    (
        "@pytest.mark.signaling(allow_errors='yes')\ndef test_it(signaling_server):\n    pass",
        "*allow_errors: must be True or False, got 'yes'",
    ),
    ("def test_it(signaling_server):\n    signaling_server.start()", "*NotRunningError: the server is running already"),
    ("def test_it(signaling_server):\n    signaling_server.port = 5", "*port*"),
]

MISUSES["signaling_server_factory"] = [
    (
        f"def test_it(signaling_server_factory):\n    signaling_server_factory({given})",
        f"*{'BindError' if 'invalid' in given else 'ConfigError'}: %: {error}",
    )
    for given, error in SETTINGS
] + [
    (f"def test_it(signaling_server_factory):\n    {use}", f"*%*{error}")
    for use, error in [
        ("signaling_server_factory(8080)", "takes no positional argument, got (8080,); name the others: NAME=VALUE"),
        ("signaling_server_factory.url", "has no use.url: call it, signaling_server_factory(...), and use the result"),
        ("with signaling_server_factory: pass", "has no use in a with statement: call it, *"),
        (
            "one = signaling_server_factory(); signaling_server_factory(port=one.port)",
            "*in use; leave out port, so that the system chooses one",
        ),
    ]
]

MISUSES["signaling_proxy"] = [
    (
        f"def test_it(signaling_proxy):\n    signaling_proxy('ws://127.0.0.1:1', {given})",
        f"*{'BindError' if 'invalid' in given else 'ConfigError'}: %: {error}",
    )
    for given, error in SETTINGS
    if not given.startswith("**")
] + [
    (f"def test_it(signaling_proxy):\n    {use}", f"*%*{error}")
    for use, error in [
        ("signaling_proxy()", "needs the URL of one server, got nothing"),
        ("signaling_proxy(8080)", "needs the URL of one server, got 8080"),
        ("signaling_proxy('ws://a', 'ws://b')", "*got ('ws://a', 'ws://b')*"),
        ("signaling_proxy.url", "has no use.url: call it, signaling_proxy(...), and use the result"),
        ("with signaling_proxy: pass", "has no use in a with statement: call it, *"),
    ]
]

OVERRIDE = """\
@pytest.fixture(scope='{}')
def signaling_config():
    return dict({})
def test_it(signaling_server_{}):
    pass"""

for scope in ("class", "module", "session"):
    MISUSES[f"signaling_server_{scope}"] = [
        (OVERRIDE.format(scope, given, scope), f"*{'BindError' if 'invalid' in given else 'ConfigError'}: %: {error}")
        for given, error in SETTINGS
    ]

MISUSES["signaling_config"] = [
    (
        f"@pytest.fixture\ndef signaling_config():\n    return {value}\ndef test_it(signaling_server):\n    pass",
        f"*signaling_config*{error}",
    )
    for value, error in [
        ("None", "must return a dictionary of settings, *, got None"),
        ("5", "must return a dictionary of settings, *, got 5"),
        ("'port'", "must return a dictionary of settings, *, got 'port'"),
        ("[]", "must return a dictionary of settings, *, got [[][]]"),
        ("['port']", "must return a dictionary of settings, *"),
        ("[('port', 1)]", "must return a dictionary of settings, *"),
        ("{'port'}", "must return a dictionary of settings, *"),
        ("dict", "must return a dictionary of settings, *"),
        ("lambda: {}", "must return a dictionary of settings, *"),
        ("True", "must return a dictionary of settings, *, got True"),
        ("(1,)", "must return a dictionary of settings, *"),
        ("b''", "must return a dictionary of settings, *"),
        ("{'allow_errors': True}", "unknown setting; *"),
        ("{1: 2}", "unknown setting; known settings: *"),
        ("{None: 2}", "unknown setting; known settings: *"),
        ("{'Port': 2}", "unknown setting; did you mean 'port'?"),
        ("{'port': '8080'}", "must be a whole number, got '8080'"),
        ("{'port': 80.5}", "must be a whole number, got 80.5"),
        ("{'port': None}", "must be a whole number, got None"),
        ("{'hook_timeout': 0}", "must be a number of seconds, more than 0, got 0"),
    ]
]

MISUSES["signaling_tls"] = [
    (
        f"@pytest.fixture\ndef signaling_tls():\n    return {value}\ndef test_it(signaling_server):\n    pass",
        "*ConfigError: signaling_server: tls (signaling_tls): *",
    )
    for value in (
        *("True", "False", "1", "0", "1.5", "'cert.pem'", "b'cert'", "''", "()", "('cert.pem', 'key.pem')", "[]", "{}"),
        *("{'certificate': 'cert.pem'}", "object()", "type", "lambda: None", "__import__('ssl')", "Ellipsis", "{1}"),
        "__import__('ssl').create_default_context()",
    )
]

PEERS = [
    ("(5)", "device_id: must be a string, like 'cvd-1', got 5"),
    ("(None)", "device_id: must be a string, like 'cvd-1', got None"),
    ("(b'cvd-1')", "device_id: must be a string, like 'cvd-1', got b'cvd-1'"),
    ("(device_id=['cvd-1'])", "device_id: must be a string, *"),
    ("('cvd-1', {})", "takes one positional argument, got ('cvd-1', {}); name the others: NAME=VALUE"),
    ("(sever=1)", "sever: unknown option; did you mean *"),
    ("(zzz=1)", "zzz: unknown option; options: server, *"),
    ("(timout=1)", "timout: unknown option; did you mean 'timeout'?"),
    ("(timeout='5')", "timeout: must be a number of seconds, got '5'"),
    ("(timeout=None)", "timeout: must be a number of seconds, got None"),
    ("(timeout=0)", "timeout: must be a number of seconds, more than 0, got 0"),
    ("(timeout=float('nan'))", "timeout: must be a number of seconds, got nan"),
    ("(headers='Origin: x')", "headers: must be a mapping of names to values, got a value of type str"),
    ("(headers=[('a', 'b')])", "headers: must be a mapping of names to values, got a value of type list"),
    ("(headers={'a': 1})", "headers: must have strings as names and values, got a int at 'a'"),
    ("(tls='ca.pem')", "tls: must be an ssl.SSLContext, like *, or None, got 'ca.pem'"),
    ("(tls=True)", "tls: must be an ssl.SSLContext, like *, or None, got True"),
    ("(server=None)", "server: must be a SignalingServer, an AttachedServer or a URL, got None"),
    ("(server=8080)", "server: must be a SignalingServer, an AttachedServer or a URL, got 8080"),
    ("(server='127.0.0.1:80')", "server: must be a server or a URL with http, https, ws or wss, got '127.0.0.1:80'"),
    ("(server='ftp://x')", "server: must be a server or a URL with http, https, ws or wss, got 'ftp://x'"),
]
ONLY_DEVICES = [
    ("(profile='old')", "profile: must be one of None, 'legacy', 'current', got 'old'"),
    ("(backoff=-1)", "backoff: must be a number of seconds, 0 or more, got -1"),
    ("(info=object())", "info: cannot be written as JSON: *"),
]

for fixture in ("fake_device", "fake_client"):
    uses = PEERS + (ONLY_DEVICES if fixture == "fake_device" else [])
    MISUSES[fixture] = [(f"def test_it({fixture}):\n    {fixture}{use}", f"*%: {error}") for use, error in uses] + [
        (f"def test_it({fixture}):\n    {fixture}.recv()", "*% is a function * has no use.recv: call it, %(...)*"),
        (
            f"def test_it({fixture}):\n    with {fixture} as peer: pass",
            "*% is a function * in a with *: call it*",
        ),
    ]
    MISUSES[f"async_{fixture}"] = [
        (f"@pytest.mark.asyncio\nasync def test_it(async_{fixture}):\n    await async_{fixture}{use}", f"*%: {error}")
        for use, error in uses
    ] + [
        (f"@pytest.mark.asyncio\nasync def test_it(async_{fixture}):\n    {use}", error)
        for use, error in [
            (f"async_{fixture}().recv()", "*AttributeError: %(...) was not awaited: write (await %(...)).recv"),
            (f"with async_{fixture}() as peer: pass", "*%: write async with, or await the call: *"),
            (f"await async_{fixture}.recv()", "*% is a function * has no use.recv: call it, %(...)*"),
        ]
    ]
    MISUSES[f"async_{fixture}"].append(
        (f"def test_it(async_{fixture}):\n    pass", "*%: works on asyncio only, and this test has no event loop: *")
    )

CASSETTE = '"cassette.jsonl"'
MISUSES["replay_device"] = [
    ("def test_it(replay_device):\n    pass", "*%: * needs *(file), which the test does not have")
]
MISUSES["replay_device"] += [
    (f"@pytest.mark.signaling_cassette({given})\ndef test_it(replay_device):\n    pass", f"*{error}")
    for given, error in [
        ("", "replay_device needs *(file), which got 0 arguments"),
        (f"{CASSETTE}, {CASSETTE}", "replay_device needs *(file), which got 2 arguments"),
        ("file='x'", "replay_device needs *(file), which got 0 arguments"),
        ("5", "%: *needs the path of a file, got 5"),
        ("None", "%: *needs the path of a file, got None"),
        ("''", "%: *needs the path of a file, got ''"),
        ("['a']", "%: *needs the path of a file, got *"),
        ("'none.jsonl'", "cannot read the cassette '*none.jsonl': *"),
        ("'.'", "cannot read the cassette '*': *"),
        ("'broken.jsonl'", "broken.jsonl:1: invalid JSON: *"),
        ("'empty.jsonl'", "empty.jsonl:1: the first line of a cassette must be *"),
        ("'version.jsonl'", "version.jsonl:1: version 9 is unknown; the known one is 1"),
        ("'sender.jsonl'", 'sender.jsonl:2: "from" must be "device" or "client", got *'),
        (f"{CASSETTE}, device_id=5", "%: device_id: must be a string, like 'cvd-1', got 5"),
        (f"{CASSETTE}, profil='legacy'", "%: profil: unknown option; did you mean 'profile'?"),
        (f"{CASSETTE}, profile='old'", "%: profile: must be one of *, got 'old'"),
        (f"{CASSETTE}, timeout='x'", "%: timeout: must be a number of seconds, got 'x'"),
        (f"{CASSETTE}, server=5", "%: server: must be a SignalingServer, *, got 5"),
        (f"{CASSETTE}, headers=5", "%: headers: must be a mapping of names to values, got a value of type int"),
        (f"{CASSETTE}, tls=5", "%: tls: must be an ssl.SSLContext, *, got 5"),
    ]
]

MISUSES["signaling_watch"] = [
    (f"def test_it(signaling_watch, signaling_server):\n    {use}", f"*%*{error}")
    for use, error in [
        *(
            (f"signaling_watch({value})", f"needs one SignalingServer of this process, got {told}")
            for value, told in [
                ("", "nothing"),
                ("None", "None"),
                ("5", "5"),
                ("'http://x'", "'http://x'"),
                ("object", "*"),
                ("[]", "*"),
                ("type(signaling_server)", "*SignalingServer*"),
                ("signaling_server.url", "'http://*'"),
                ("{}", "{}"),
                ("signaling_server.journal", "<Journal *>"),
                ("signaling_server.clock", "<Clock *>"),
                ("()", "()"),
                ("[signaling_server]", "*"),
                ("True", "True"),
                ("lambda: signaling_server", "*"),
                ("1.5", "1.5"),
                (
                    "__import__('cuttlefish_signaling.testing').testing.AttachedServer(signaling_server.url)",
                    "<Attached*",
                ),
            ]
        ),
        ("signaling_watch(signaling_server, signaling_server)", "takes one positional argument, got *"),
        ("signaling_watch.journal", "has no use.journal: call it, *"),
        ("with signaling_watch: pass", "has no use in a with statement: call it, *"),
    ]
]

MISUSES["signaling_cluster"] = [
    (f"def test_it(signaling_cluster):\n    signaling_cluster({given})", f"*ConfigError: %: {error}")
    for given, error in [
        ("nodes=0", "SignalingCluster: nodes: must be between 1 and 16, got 0"),
        ("nodes=17", "SignalingCluster: nodes: must be between 1 and 16, got 17"),
        ("nodes='3'", "SignalingCluster: nodes: must be a number of nodes, or a list of *, got '3'"),
        ("nodes=None", "SignalingCluster: nodes: must be a number of nodes, or a list of *, got None"),
        ("nodes=[]", "SignalingCluster: nodes: must have between 1 and 16 nodes, got 0"),
        ("nodes=[3]", "SignalingCluster: nodes: must be a number of nodes, or a list of *, got 3 in it"),
        ("[{'prot': 1}]", "SignalingCluster: nodes[[]0]: prot: unknown setting; did you mean *"),
        ("max_device=1", "SignalingCluster: max_device: unknown setting; did you mean 'max_devices'?"),
        ("port=8080", "SignalingCluster: port: is set by the cluster of the test: leave it out"),
        ("node='a'", "SignalingCluster: node: is set by the cluster of the test: leave it out"),
        ("max_devices='7'", "SignalingCluster: max_devices: '7' is not a whole number from 1 to *"),
        ("journal='yes'", "SignalingCluster: journal: 'yes' is not true or false"),
        ("on_duplicate='keep'", "SignalingCluster: on_duplicate: 'keep' is not one of reject, replace"),
        ("timeout=0", "timeout: must be a number of seconds, more than 0, got 0"),
        ("timeout=None", "timeout: must be a number of seconds, got None"),
    ]
] + [
    (f"def test_it(signaling_cluster):\n    {use}", f"*{error}")
    for use, error in [
        ("signaling_cluster(1, 2)", "%: takes one positional argument, got (1, 2); name the others: NAME=VALUE"),
        ("signaling_cluster.nodes", "%* has no use.nodes: call it, %(...), and use the result"),
        ("with signaling_cluster: pass", "%* has no use in a with statement: call it, %(...), *"),
        ("signaling_cluster(1).kill('node2')", "*ClusterError: 'node2' is not a node of this cluster; there are node1"),
        ("c = signaling_cluster(1); c.partition(0, 0)", "*ClusterError: a partition has two ends, and both are node1"),
        (
            "c = signaling_cluster(1); c.kill(0); c.pause(0)",
            "*ClusterError: node node1 is killed, and was to be paused",
        ),
        ("signaling_cluster(1).heal(0)", "*ClusterError: heal takes two ends, or none to heal all partitions"),
        (
            "signaling_cluster(1).nodes[0].journal",
            "*NotOursError: journal is not available: node node1 runs in a process of its own",
        ),
        (
            "signaling_cluster(1, token_file='/nowhere')",
            "*ClusterError: node node1 has ended before it listens: * it said: *error: --token-file: cannot read *",
        ),
    ]
]
MISUSES["signaling_cluster"].append(
    (
        "def test_it(signaling_cluster, fake_device):\n    signaling_cluster(1)\n    fake_device()",
        "*ConfigError: fake_device: server: is missing: the test has a cluster, so name one of its nodes: *",
    )
)
