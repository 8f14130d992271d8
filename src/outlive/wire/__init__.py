"""What hosts say to each other, as bytes: packed, tagged, refused when wrong, sent and received.

`seal` holds the cluster's key, `datagram` the messages, `receiver` the rules by which a message is refused,
`endpoint` the socket. What a message means for the cluster is decided in `outlive.cluster`. Whatever arrives,
nothing here raises for it or grows without bound: a datagram becomes a message or a `Refused`.
"""
