"""Every message kind with its exact frame: request id 1, version 1, then MessagePack.

The bytes are the protocol.  A line here is never changed; a new field with a default gets a new line.
"""

from fabric.wire import messages as m

INFO = m.ObjectInfo("a/b", 5, 7, 9, "sha256:00", 1_700_000_000_000, {"k": "v"}, True)
REF = m.FragmentRef(1, 2**63, 4096, 2**64 - 1)
OPERATION_ID = b"0123456789abcdef"
NODE = m.NodeStatus(
    "chunk-1", "u1", "tcp://127.0.0.1:7410", 1, 3, "RO", "disk nearly full", "rw", 10, 4096, 1, 2, 0, 250, 5
)

NODE_NOW = m.NodeStatus(
    *(getattr(NODE, name) for name in NODE.__struct_fields__[:-2]), quarantined=2, garbage_bytes=8192
)

GOLDEN: list[tuple[m.Message, str]] = [
    (
        m.Failed("BUSY", "come back", True),
        "0100000000000000019401a442555359a9636f6d65206261636bc3",
    ),
    (
        m.Ping(1500),
        "0100000000000000019202cd05dc",
    ),
    (
        m.Pong("proxy", "p1", "0.1.0"),
        "0100000000000000019403a570726f7879a27031a5302e312e30",
    ),
    (
        m.StoreFragment(3000, 1, 7, 1099511627776, 18446744073709551615),
        "010000000000000001960acd0bb80107cf0000010000000000cfffffffffffffffff",
    ),
    (
        m.FragmentStored(1, 7, 1099511627776, 4194304, 0),
        "010000000000000001960b0107cf0000010000000000ce0040000000",
    ),
    (
        m.ReadFragment(2000, 1, 5, 128, 4096),
        "010000000000000001960ccd07d00105cc80cd1000",
    ),
    (
        m.FragmentData(5, 128, 77),
        "010000000000000001940d05cc804d",
    ),
    (
        m.AbortFragment(1000, 1, 5),
        "010000000000000001940ecd03e80105",
    ),
    (
        m.FragmentAborted(5),
        "010000000000000001920f05",
    ),
    (
        m.ListBuckets(1000, 1),
        "0100000000000000019310cd03e801",
    ),
    (
        m.Buckets(
            1,
            [
                b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            ],
        ),
        "01000000000000000193110192c41000000000000000000000000000000000c410ffffffffffffffffffffffffffffffff",
    ),
    (
        m.ListBucket(1000, 1, 255, 0),
        "0100000000000000019512cd03e801ccff00",
    ),
    (
        m.BucketEntries(1, 255, [m.BucketEntry(5, 10, 99)], False),
        "010000000000000001951301ccff9193050a63c2",
    ),
    (
        m.MaintainChunk(1000, "scrub"),
        "0100000000000000019314cd03e8a57363727562",
    ),
    (
        m.ChunkDetails(
            "chunk-1",
            "0.1.0",
            2**53,
            1,
            3,
            "RW",
            "",
            10,
            4096,
            2,
            8192,
            1024,
            1099511627776,
            2199023255552,
            0,
            1,
            m.ScrubDetails(True, False, 0.5, 3, 1_700_000_000_000, 1_699_000_000_000, 5, 2048, 1),
            m.CompactionDetails(True, True, 0.25, [1, 7], 2, 4096, ""),
        ),
        "010000000000000001dc001315a76368756e6b2d31a5302e312e30cf00200000000000000103a252"
        "57a00acd100002cd2000cd0400cf0000010000000000cf0000020000000000000199c3c2cb3fe000"
        "000000000003cf0000018bcfe56800cf0000018b944a9e0005cd08000197c3c3cb3fd00000000000"
        "0092010702cd1000a0",
    ),
    (
        m.Heartbeat(
            1000,
            "chunk-1",
            "u1",
            9007199254740992,
            "tcp://127.0.0.1:7410",
            1,
            2,
            3,
            b"",
            "",
            10,
            4096,
            1099511627776,
            2199023255552,
            0,
            [5, 6],
            2,
            8192,
        ),
        "010000000000000001dc00131ecd03e8a76368756e6b2d31a27531cf0020000000000000b4746370"
        "3a2f2f3132372e302e302e313a37343130010203c400a00acd1000cf0000010000000000cf000002"
        "00000000000092050602cd2000",
    ),
    (
        m.Assignment(2, 1, 3, "SYNC", [m.Member("chunk-1", "tcp://127.0.0.1:7410")], [5], 4000),
        "010000000000000001981f020103a453594e439192a76368756e6b2d31b47463703a2f2f3132372e"
        "302e302e313a373431309105cd0fa0",
    ),
    (
        m.LeaseFids(1000, "p1", 100000),
        "0100000000000000019420cd03e8a27031ce000186a0",
    ),
    (
        m.FidLease(100001, 100000, 600000),
        "0100000000000000019421ce000186a1ce000186a0ce000927c0",
    ),
    (
        m.GetTopology(1000),
        "0100000000000000019222cd03e8",
    ),
    (
        m.Topology(
            2,
            11,
            [m.NodeView("chunk-1", "tcp://127.0.0.1:7410", 1, "RW")],
            [m.GroupView(1, 3, True, 1099511627776, ["chunk-1"])],
        ),
        "0100000000000000019523020b9194a76368756e6b2d31b47463703a2f2f3132372e302e302e313a"
        "3734313001a2525791950103c3cf000001000000000091a76368756e6b2d31",
    ),
    (
        m.ReportFailure(1000, "p1", "chunk-1", 1, 5, "DEADLINE", "3 s"),
        "0100000000000000019824cd03e8a27031a76368756e6b2d310105a8444541444c494e45a3332073",
    ),
    (
        m.Noted(),
        "0100000000000000019125",
    ),
    (
        m.Commit(
            1000,
            OPERATION_ID,
            [
                m.PutOperation("a/b", [REF], "sha256:00", {"k": "v"}, 0, True),
                m.AppendOperation("u", [], 4096, {}),
                m.MoveOperation("u", "a/c", "", {}, False, -1, False),
                m.DeleteOperation("x", -1, True),
                m.CheckOperation("y", -1),
            ],
        ),
        "0100000000000000019428cd03e8c41030313233343536373839616263646566959701a3612f6291"
        "9401cf8000000000000000cd1000cfffffffffffffffffa97368613235363a303081a16ba17600c3"
        "9502a17590cd1000809803a175a3612f63a080c2ffc29404a178ffc39305a179ff",
    ),
    (
        m.Committed([INFO, None]),
        "01000000000000000192299298a3612f62050709a97368613235363a3030cf0000018bcfe5680081a16ba176c3c0",
    ),
    (
        m.Stat(1000, "a/b"),
        "010000000000000001932acd03e8a3612f62",
    ),
    (
        m.Found(INFO),
        "010000000000000001922b98a3612f62050709a97368613235363a3030cf0000018bcfe5680081a16ba176c3",
    ),
    (
        m.Open(1000, "a/b", 4611686018427387904),
        "010000000000000001942ccd03e8a3612f62cf4000000000000000",
    ),
    (
        m.Opened(INFO, 0, [REF], False),
        "010000000000000001952d98a3612f62050709a97368613235363a3030cf0000018bcfe5680081a1"
        "6ba176c300919401cf8000000000000000cd1000cfffffffffffffffffc2",
    ),
    (
        m.ListFragments(1000, 9, 4194304),
        "010000000000000001942ecd03e809ce00400000",
    ),
    (
        m.Fragments(4194304, [REF], True),
        "010000000000000001942fce00400000919401cf8000000000000000cd1000cfffffffffffffffffc3",
    ),
    (
        m.ListObjects(1000, "a/", "/", "", 1000),
        "0100000000000000019630cd03e8a2612fa12fa0cd03e8",
    ),
    (
        m.Listing([INFO], ["a/c/"], "a/c0"),
        "01000000000000000194319198a3612f62050709a97368613235363a3030cf0000018bcfe5680081"
        "a16ba176c391a4612f632fa4612f6330",
    ),
    (
        m.CatalogChanged(2, 12, ["a/b"]),
        "0100000000000000019432020c91a3612f62",
    ),
    (
        m.PutFragment(1000, 3),
        "010000000000000001933ccd03e803",
    ),
    (
        m.Stored(REF, 7),
        "010000000000000001933d9401cf8000000000000000cd1000cfffffffffffffffff07",
    ),
    (
        m.PutObject(1000, OPERATION_ID, "é", 3, "", {}, -1, False),
        "010000000000000001993ecd03e8c41030313233343536373839616263646566a2c3a903a080ffc2",
    ),
    (
        m.GetFragment(1000, REF, 0, 10),
        "010000000000000001953fcd03e89401cf8000000000000000cd1000cfffffffffffffffff000a",
    ),
    (
        m.GetObject(1000, "a/b", 0, 4194304),
        "0100000000000000019540cd03e8a3612f6200ce00400000",
    ),
    (
        m.ObjectData(INFO, 0, [REF], False, 0, 77),
        "010000000000000001974198a3612f62050709a97368613235363a3030cf0000018bcfe5680081a1"
        "6ba176c300919401cf8000000000000000cd1000cfffffffffffffffffc2004d",
    ),
    (
        m.GetStatus(1000),
        "0100000000000000019250cd03e8",
    ),
    (
        m.ClusterStatus(
            2,
            61000,
            "0.1.0",
            200000,
            1,
            [NODE_NOW],
            [m.GroupStatus(1, 3, "SEALED", "chunk-1 is OFFLINE", 3, ["chunk-1"], 1, 2, 3)],
        ),
        "010000000000000001985102cdee48a5302e312e30ce00030d400191dc0011a76368756e6b2d31a2"
        "7531b47463703a2f2f3132372e302e302e313a373431300103a2524fb06469736b206e6561726c79"
        "2066756c6ca272770acd1000010200ccfa0502cd200091990103a65345414c4544b26368756e6b2d"
        "31206973204f46464c494e450391a76368756e6b2d31010203",
    ),
    (
        m.SetServerStatus(1000, "chunk-1", "ro"),
        "0100000000000000019452cd03e8a76368756e6b2d31a2726f",
    ),
    (
        m.ServerStatusSet(NODE_NOW, True),
        "0100000000000000019353dc0011a76368756e6b2d31a27531b47463703a2f2f3132372e302e302e"
        "313a373431300103a2524fb06469736b206e6561726c792066756c6ca272770acd1000010200ccfa"
        "0502cd2000c3",
    ),
]

OLDER: list[tuple[m.Message, str]] = [
    (
        m.Heartbeat(
            1000,
            "chunk-1",
            "u1",
            9007199254740992,
            "tcp://127.0.0.1:7410",
            1,
            2,
            3,
            b"",
            "",
            10,
            4096,
            1099511627776,
            2199023255552,
            0,
            [5, 6],
        ),
        "010000000000000001dc00111ecd03e8a76368756e6b2d31a27531cf0020000000000000b4746370"
        "3a2f2f3132372e302e302e313a37343130010203c400a00acd1000cf0000010000000000cf000002"
        "000000000000920506",
    ),
    (
        m.ClusterStatus(
            2,
            61000,
            "0.1.0",
            200000,
            1,
            [NODE],
            [m.GroupStatus(1, 3, "SEALED", "chunk-1 is OFFLINE", 3, ["chunk-1"], 1, 2, 3)],
        ),
        "010000000000000001985102cdee48a5302e312e30ce00030d4001919fa76368756e6b2d31a27531"
        "b47463703a2f2f3132372e302e302e313a373431300103a2524fb06469736b206e6561726c792066"
        "756c6ca272770acd1000010200ccfa0591990103a65345414c4544b26368756e6b2d31206973204f"
        "46464c494e450391a76368756e6b2d31010203",
    ),
    (
        m.ServerStatusSet(NODE, True),
        "01000000000000000193539fa76368756e6b2d31a27531b47463703a2f2f3132372e302e302e313a"
        "373431300103a2524fb06469736b206e6561726c792066756c6ca272770acd1000010200ccfa05c3",
    ),
]
"""What peers that lack the newest fields send: read with the defaults."""
