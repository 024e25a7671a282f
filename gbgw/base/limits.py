"""Every ceiling of the program, each with its reason. Nothing grows without a line here."""

from typing import Final

# Media in
ACCESS_UNIT_BYTES: Final = 8 << 20  # a whole second of a 64 Mbit/s stream; one picture is far less
REORDER_PACKETS: Final = 512  # half a second of a 10 Mbit/s stream
REORDER_SECONDS: Final = 0.2  # GB/T 28181 allows 50 ms of jitter; four times that still feels live
REORDER_BYTES: Final = 4 << 20  # held behind a hole: three seconds of a 10 Mbit/s stream
RTP_FRAME_BYTES: Final = 65_535  # RFC 4571 length field; Dahua was seen with 32,810
FRAMER_BYTES: Final = 256 << 10  # four frames of the largest size: enough to confirm a resynchronisation
PSM_BYTES: Final = 1_018  # H.222.0 (2021) section 2.5.4
SYSTEM_HEADER_BYTES: Final = 1_024  # 18 bytes are usual; longer means damage
PARAMETER_SETS: Final = 32  # H.264 allows 32 SPS; cameras send one or two
PARAMETER_SET_BYTES: Final = 4_096  # a PPS with scaling lists is below 1 KiB
REORDER_PICTURES: Final = 16  # H.264 and H.265 both allow 16 pictures in the decoded picture buffer
NAL_UNITS: Final = 4_096  # in one picture: H.265 level 6.2 allows 600 slices
TRACKS: Final = 32  # elementary streams of one program that are kept apart; cameras send one or two of a kind
TRACK_SILENCE_SECONDS: Final = 5.0  # audio quiet for this long is no longer a track; a lost second is
UNIT_SILENCE_SECONDS: Final = 0.1  # an unfinished unit is taken as finished after this (architecture.md decision 11)
WAITING_UNIT_BYTES: Final = 16 << 20  # of one stream between receive thread and loop: two of the largest units
WAITING_BYTES: Final = 512 << 20  # of all streams together: two seconds of 500 streams of 4 Mbit/s
GARBAGE_SECONDS: Final = 60.0  # between two looks through everything that lives, at least
GARBAGE_SHARE: Final = 0.001  # of the time may go into it: 0.1 s for a million objects, then 100 s without
GARBAGE_ROUNDS: Final = 10  # collections of the middle generation before it pays: the interpreter's own number
LOAD_SECONDS: Final = 1.0  # between two looks at the load of a media worker
OVERLOAD_SECONDS: Final = 3.0  # of unbroken lateness before new streams are refused: a hiccup is shorter
OVERLOAD_CALM_SECONDS: Final = 10.0  # without half of that lateness before they are welcome again
RECEIVE_SOCKETS: Final = 32_768  # of one receive thread: as many as there are even ports
RECEIVE_TICK_SECONDS: Final = 0.003  # a turn of the receive thread: a picture at once (architecture.md decision 2)
RECEIVE_BUFFER_BYTES: Final = 4 << 20  # SO_RCVBUF of one RTP socket: eight seconds of a 4 Mbit/s stream
SHARED_BUFFER_BYTES: Final = 64 << 20  # SO_RCVBUF of the one socket of all streams: 0.3 s of 500 streams of 4 Mbit/s
SHARED_ENDED: Final = 65_536  # SSRCs of streams that are over and whose cameras may still send to the shared port
SHARED_REFUSED: Final = 1_024  # hosts whose packets were another's, remembered for a diagnosis
SHARED_ARRIVALS: Final = 1_024  # connections to the shared port whose stream is not known yet
SHARED_ARRIVAL_SECONDS: Final = 10.0  # until the first packet of such a connection; what first_packet_seconds allows
PORT_QUARANTINE_SECONDS: Final = 5.0  # a port rests until its last camera was silent for so long (architecture.md 13)
PORT_BIND_ATTEMPTS: Final = 256  # ports found taken by other programs before one request gives up
MEDIA_CONNECT_SECONDS: Final = 5.0  # one attempt to connect to a camera (TCP active)
MEDIA_CONNECT_ATTEMPTS: Final = 4  # GB/T 28181-2022 annex D wants three or more, a second or more apart
MEDIA_STALLED_SECONDS: Final = 3.0  # a TCP connection or UDP source silent for so long may be replaced
SOURCE_SILENCE_SECONDS: Final = 0.3  # of a UDP source before another that continues its stream follows: 7 frames
SOURCE_UNKNOWN_SECONDS: Final = 0.5  # of a first source that nobody announced: time for a better one
SOURCE_PROOF_PACKETS: Final = 3  # in sequence, that show that a new source continues the stream
SOURCE_HELD_PACKETS: Final = 512  # of a new source meanwhile: 0.3 s of a 16 Mbit/s stream
SOURCE_HELD_BYTES: Final = 1 << 20
PAYLOAD_SAMPLES: Final = 64  # heads of payloads kept, until the first pack, to say what it is instead
RTCP_INTERVAL_SECONDS: Final = 5.0  # RFC 3550 section 6.2 minimum; what GB peers expect

# Hub and viewers
GOP_CACHE_BYTES: Final = 32 << 20  # eight seconds of a 32 Mbit/s stream
GOP_CACHE_SECONDS: Final = 30.0  # longer GOPs are cut: a viewer then waits for the next key frame
SUBSCRIPTION_BYTES: Final = 4 << 20  # two seconds of a 16 Mbit/s stream; more is a reader that cannot keep up
VIEWER_BUFFER_BYTES: Final = (
    2 << 20
)  # in the transport of one HTTP viewer beyond the first burst, before it skips to the next key frame
TRACKS_WAIT_SECONDS: Final = 0.5  # promised audio that never comes must not delay the picture
DECODE_PIXELS: Final = 8_192 * 4_352  # one 8K picture; its RGB is 107 MB
VIEWERS: Final = 4_096  # at once, all protocols

# Segments and transcoders
HLS_SEGMENT_SECONDS: Final = 10.0  # longer GOPs are cut inside; players buffer three segments
HLS_SEGMENT_BYTES: Final = 16 << 20  # ten seconds of a 13 Mbit/s stream
HLS_WINDOW_BYTES: Final = 64 << 20  # of one stream and container, retired segments included
TRANSCODE_FRAME_BYTES: Final = 16 << 20  # one message to or from a child: a unit is at most ACCESS_UNIT_BYTES
TRANSCODE_PENDING_BYTES: Final = (
    4 << 20
)  # towards one child before it skips to a key frame: a second of a 32 Mbit/s stream
TRANSCODE_STUCK_SECONDS: Final = 10.0  # a child that takes nothing for so long is killed; the slowest picture takes one
TRANSCODE_EARLY_PIECES: Final = 256  # of sound, kept while the child starts: ten seconds of 40 ms each
TRANSCODE_AUDIO_STREAMS: Final = 1_024  # in one child: 2.4 ms of CPU a stream-second fills a core with some 400
TRANSCODE_STDERR_LINE: Final = 4_096  # of a child's complaint that is kept

# SIP
SIP_DATAGRAM_BYTES: Final = 65_507  # what one UDP packet of IPv4 carries
SIP_HEADER_BYTES: Final = 64 << 10
SIP_BODY_BYTES: Final = 16 << 20  # catalogs of 10,000 channels over TCP
SIP_STREAM_BYTES: Final = 20 << 20  # pending bytes of one TCP connection
SIP_PENDING_BYTES: Final = 256 << 20  # unfinished messages of all connections: twelve of the largest at once
SIP_HEADERS: Final = 256  # lines in one message
SIP_INBOX: Final = 4_096  # parsed messages that wait for the user agent
SIP_CONNECTIONS: Final = 20_000  # TCP connections at once: one per device
SIP_TRANSACTIONS: Final = 200_000  # 5,000 requests/s live for 32 s each (timer J)
SIP_FORKS: Final = 8  # 2xx of different peers to one INVITE; more are not even acknowledged
SIP_DIALOGS: Final = 50_000  # one per stream and direction; a node carries a few thousand
SIP_PROCEEDING_SECONDS: Final = 190.0  # RFC 3261 timer C (over 3 minutes): an INVITE that only rings ends then
SIP_CONNECTIONS_PER_HOST: Final = 4_096  # many devices may share one NAT, one host must not take all
SIP_ROUTES: Final = 65_536  # peers whose flow is remembered; the memory starts afresh beyond that
SIP_RESYNC_BYTES: Final = 1 << 20  # beyond a Content-Length: 10,000 channels counted in characters miss 0.3 MB
SIP_TAIL_SECONDS: Final = 0.1  # of silence after the promised bytes of half a document: its tail comes with them
SIP_QUIET_SECONDS: Final = 1.0  # of silence before promised bytes are not waited for: TCP repeats a lost one within it
SIP_MESSAGE_SECONDS: Final = 60.0  # from the first byte of a message on a connection to its last
SIP_CONNECTION_IDLE_SECONDS: Final = 300.0  # without one byte: five keepalive intervals of GB/T 28181
SIP_WRITE_BUFFER_BYTES: Final = 20 << 20  # unsent bytes of one TCP connection; the peer does not read, it is closed
SIP_STRANDED_SECONDS: Final = 60.0  # a dialog without its TCP connection: devices connect again within a heartbeat
SIP_CALL_EVENTS: Final = 64  # of one INVITE that its caller has not read yet; more provisional answers are dropped
NONCES: Final = 65_536  # outstanding challenges remembered
AUTH_FAILURES: Final = 5  # per source and per id inside AUTH_FAILURE_SECONDS, then refused unread
AUTH_FAILURE_SECONDS: Final = 60.0
ORPHAN_SECONDS: Final = 86_400.0  # a dialog of a life before this one; no camera streams into nothing for longer
GOODBYE_SECONDS: Final = 2.0  # a parting BYE may take this long

# GB/T 28181
XML_BYTES: Final = 16 << 20
DOCUMENT_BACKLOG_BYTES: Final = 64 << 20  # of large documents that wait to be read: twenty catalogs of 10,000 channels
XML_DEPTH: Final = 32
XML_TEXT: Final = 65_536  # characters in one field
CATALOG_ITEMS: Final = 10_000  # per message, GB/T 28181-2022 section 9.5
CHANNELS: Final = 100_000  # per device
DEVICES: Final = 100_000
XML_ELEMENTS: Final = (
    400_000  # 10,000 catalog items of 40 fields; a parse then takes about a second and 100 MB at worst
)
CATALOG_PARENTS: Final = 16  # ids in one ParentID; more is damage
CATALOG_FIRST_SECONDS: Final = 30.0  # until the first part of a catalog
CATALOG_GAP_SECONDS: Final = 10.0  # between its parts, then it is finished as partial
CATALOG_SECONDS: Final = 600.0  # for a whole catalog: 10,000 messages of one item at 17 a second
QUERY_SECONDS: Final = 10.0  # for the answer to any other query
QUERIES: Final = 100_000  # pending at once: one for each device
RECORDS: Final = 20_000  # recordings in one answer: 31 days of two-minute files
RECORD_FIRST_SECONDS: Final = 15.0  # until the first part of a list of recordings: a disk may have to spin up
RECORD_GAP_SECONDS: Final = 5.0  # between its parts, then it is finished as partial
RECORD_SECONDS: Final = 120.0  # for one whole list
RECORD_SPAN_SECONDS: Final = 31 * 86_400  # asked for at once; each of its days is a query of its own
RECORD_ANSWERS: Final = 64  # lists kept for whoever turns their pages
RECORD_ANSWER_SECONDS: Final = 60.0  # for so long
ANSWER_ITEMS: Final = 512  # of one list in a small answer: devices were seen to list 300 presets
ANSWER_TEXT: Final = 1_024  # characters kept of one of its fields, as of an extension text (reference 3.1)
POSITIONS: Final = 1_000  # read of one message of positions
POSITIONS_TOLD: Final = 100  # of them in one event: 15 kB, of which a thousand are remembered
PTZ_HOLD_SECONDS: Final = 5.0  # an operator keeps a camera so long after his last command: time to press again
PTZ_LEASE_SECONDS: Final = 10.0  # the longest movement that is not renewed (reference 3.8: a watchdog of 10 s)
SNAPSHOT_BYTES: Final = 16 << 20  # one JPEG of a camera; 8K ones are below 10 MB
SNAPSHOTS_BYTES: Final = 256 << 20  # of all snapshots kept: 100 of 2.5 MB
SNAPSHOT_SESSIONS: Final = 1_000  # orders remembered, and what became of them
SNAPSHOT_FILES: Final = 10  # of one order (GB/T 28181-2022 A.2.3.2.9)
SNAPSHOT_KEPT_SECONDS: Final = 3_600.0  # time to look at them or fetch them
SNAPSHOT_SECONDS: Final = 60.0  # for a picture to arrive, beyond the intervals ordered
UPGRADES: Final = 1_000  # remembered, with their results
AUDIT_DETAIL: Final = 2_048  # characters of what a command had with it
AUDIT_ROWS: Final = 100_000  # kept of the audit log: a year of 270 commands a day
PTZ_HOLDS: Final = 10_000  # cameras steered at once
RECORD_END_SECONDS: Final = 3.0  # before the end of a span, where silence is its regular end (reference 6.9)
RECORD_DRAIN_SECONDS: Final = 1.0  # of media after the device has said that a recording is over
PLAYBACK_PAUSED_SECONDS: Final = 300.0  # a playback may stand still for so long; what the usual servers allow
PLAYBACK_LINGER_SECONDS: Final = 1.0  # of a playback that nobody else can open
PLAYBACKS: Final = 1_000  # made by the API and not over
PLAYBACK_IDLE_SECONDS: Final = 600.0  # one that nobody plays is forgotten
DOWNLOADS: Final = 4  # fetched at once; the others wait: recorders serve few sessions of history
DOWNLOAD_ROWS: Final = 1_000  # listed
DOWNLOAD_SPEED: Final = 16  # times the recorded one that may be asked for
DOWNLOAD_PENDING_BYTES: Final = 32 << 20  # that wait for the disk: a second of 16 times 16 Mbit/s
DOWNLOAD_CHECK_BYTES: Final = 16 << 20  # between two looks at the disk
DOWNLOAD_FREE_BYTES: Final = 512 << 20  # that a download leaves on its disk: the store lives there, too
DOWNLOAD_FINISH_SECONDS: Final = 1_800.0  # to make an MP4: a day of video is copied in minutes
SDP_BYTES: Final = 64 << 10  # an offer or answer is below 2 KiB
SDP_LINES: Final = 512  # a browser's offer has 150, a device's 12
SSRC_SERIALS: Final = 9_999  # four digits, by the rule of the standard
SSRC_QUARANTINE_SECONDS: Final = 30.0  # cameras were seen sending for seconds after BYE
AUTH_SOURCES: Final = 65_536  # addresses and (address, id) pairs whose failures are remembered
AUTH_SOURCE_FAILURES: Final = (
    50  # per source alone: a NAT in front of many cameras must not be locked out by one of them
)
BINDING_GRACE_SECONDS: Final = 15.0  # GB/T 28181 reference practice: 10 to 30 s after the expiry
REGISTER_MIN_SECONDS: Final = 60  # devices were seen offering 60 s; shorter expiries are raised to this
REGISTER_MAX_SECONDS: Final = 604_800  # a week; longer ones are cut
KEEPALIVE_MIN_SECONDS: Final = 5.0  # the shortest interval that is learned from a device
KEEPALIVE_MAX_SECONDS: Final = 300.0  # and the longest

# HTTP
HTTP_LINE_BYTES: Final = 8_190  # the request line, and each header; what nginx allows by default
HTTP_BODY_BYTES: Final = 1 << 20  # an SDP offer is below 16 KiB
WHEP_SDP_BYTES: Final = 64 << 10  # Chromium's offers are below 16 KiB

# Media workers
WORKERS: Final = 64  # processes; more than the cores of one machine that serves
WORKER_MEMORY_BYTES: Final = 512 << 20  # of ours for each process that "auto" starts: 60 MB, and GOPs of 200 cameras
WORKER_MESSAGE_BYTES: Final = 16 << 20  # a report of limits.VIEWERS viewers and 2,000 streams is below 2 MB
WORKER_PENDING_BYTES: Final = 32 << 20  # towards one worker; it reads all the time, so more means that it hangs
WORKER_HEAD_BYTES: Final = 96 << 10  # of a request that is handed over; what fits one message of a Unix socket
WORKER_ANSWER_SECONDS: Final = 5.0  # for one word of a worker; 1 ms is usual
WORKER_CLOSE_SECONDS: Final = 0.8  # for giving back a port; with GOODBYE and STOP less than the 5 s of a SIGTERM
WORKER_SILENT_SECONDS: Final = 3.0  # without a report: gets no new stream while others do better
WORKER_START_SECONDS: Final = 20.0  # from its start until it is ready; one second is usual
WORKER_STUCK_SECONDS: Final = 10.0  # a worker that said nothing for so long is killed; it reports each second
WORKER_TICKET_SECONDS: Final = 10.0  # a place is kept for a viewer on his way to a worker; one millisecond is usual
WORKER_STOP_SECONDS: Final = 1.5  # for its end; of the 5 s a SIGTERM may take
WORKER_REINVITES: Final = 3  # of one stream in WORKER_REINVITE_SECONDS: what kills its worker each time stays down
WORKER_REINVITE_SECONDS: Final = 60.0  # a camera that needs longer to bring a worker down does little harm

# Simulated device
LOOP_BYTES: Final = 256 << 20  # encoded media of one loop: ten minutes at 3.5 Mbit/s; longer files are cut
LOOP_SECONDS: Final = 600.0  # of a media file: decoding its sound holds 16 bytes a millisecond
FANOUT_SLICE: Final = 128  # viewers written to before the loop gets its turn: about 1 ms
FANOUT_PENDING: Final = 512  # chunks one fan-out may be behind: some seconds of audio and video
NOTSENT_LOWAT_BYTES: Final = (
    128 << 10
)  # else the kernel hides 4 MB, eight seconds of a stream, from the slow-viewer test
VIEWER_STALL_SECONDS: Final = 30.0  # a viewer that took no byte for so long is gone
HTTP_CONNECTIONS: Final = 8_192  # at once: every viewer of limits.VIEWERS and as many requests
HTTP_STOP_SECONDS: Final = 3.0  # of the 5 s a SIGTERM may take
HLS_SESSION_SECONDS: Final = 15.0  # without a poll, or three target durations where that is longer
HLS_UNPOLLED_SECONDS: Final = 5.0  # of a session whose playlist nobody ever read; a slow phone needs two
HLS_SESSION_WAITS: Final = 4  # requests that one session holds open: a playlist, the part it hints at, and as many late
HLS_SEND_SECONDS: Final = 30.0  # for the bytes of one segment; after that it has left the playlist
HLS_FIRST_SEGMENT_SECONDS: Final = 20.0  # a playlist waits for its first segment: two GOPs of ten seconds
WEBSOCKET_MESSAGE_BYTES: Final = 4 << 10  # viewers have nothing to say
TOKENS: Final = 1_000  # bearer tokens at once
TOKEN_CHARS: Final = 512  # ours are below 100; longer ones are refused unread
PAGE_ITEMS: Final = 1_000  # of one page of an API list
EVENT_VIEWERS: Final = 64  # server-sent event streams at once: dashboards, not viewers
EVENT_HEARTBEAT_SECONDS: Final = 15.0  # below the idle limit of the usual proxies (60 s)
PLAY_TOKEN_SECONDS: Final = 7 * 86_400.0  # longest validity of a signed play URL
DEVICE_SESSIONS: Final = 64  # at once in one simulated device: sixteen channels in four streams each
DEVICE_MESSAGES: Final = 20_000  # answers that wait in one simulated device: two catalogs of 10,000 channels
DEVICE_SEND_BYTES: Final = 1 << 20  # in a TCP media connection before units are dropped: two seconds of 4 Mbit/s

# Store
DIALOG_WRITE_SECONDS: Final = 1.0  # for the one write that a picture waits for; 0.4-10 ms on a healthy disk
STORE_BATCH: Final = 1_000  # writes in one transaction; more are written before the 100 ms are over
STORE_BATCHES: Final = 64  # on their way to the disk; a slower disk loses writes that nobody waits for
HTTP_HEAD_SECONDS: Final = 20.0  # for the first request head of a connection; nginx waits 60, slow phones need 2
WHEP_ANSWER_SECONDS: Final = 5.0  # gathering is one bind; longer is a fault of ours

# WebRTC
WHEP_MEDIA_LINES: Final = 32  # of an offer; a browser's has three at most
WHEP_CANDIDATES: Final = 32  # remote addresses of a line or fragment, and of a session: each is probed
WHEP_FINGERPRINTS: Final = 4  # of a line: one for each digest that DTLS knows, and one over
WEBRTC_CHECKS: Final = 100  # pairs of addresses probed for one viewer (RFC 8445 section 6.1.2.5)
WEBRTC_SOURCES: Final = 8  # of one viewer on a shared port: each network of a telephone, twice over
WEBRTC_SOURCE_HELD_SECONDS: Final = 10.0  # nobody else gets a source that proved itself since; browsers do every 5 s
WEBRTC_CONSENT_SECONDS: Final = 30.0  # RFC 7675 section 5.1
WEBRTC_IDENTITY_SECONDS: Final = 7 * 86_400.0  # a certificate for new viewers; it is valid for 30 days
WEBRTC_PROBE_SECONDS: Final = 0.5  # between two questions to sources that a viewer wants to move to
WEBRTC_SOCKET_BYTES: Final = 8 << 20  # buffers of a port that all viewers share: a key frame of 40 kB to each of 200
WEBRTC_DATAGRAMS: Final = 256  # unread from one viewer: seconds of RTCP; before DTLS anybody may send them
WEBRTC_CATCH_UP_BYTES: Final = 3 << 20  # of a cached GOP, half a second at the pace it leaves with
WEBRTC_CATCH_UP_PICTURES: Final = 300  # of it: twelve seconds, which a browser decodes in about one
WEBRTC_HISTORY: Final = 1_024  # packets kept for NACK, power of two: 200 ms of a catch-up burst, 2 s of 4 Mbit/s
WEBRTC_REPAIRS: Final = 256  # retransmissions allowed at once: a burst of loss of 300 kB
WEBRTC_REPAIR_SHARE: Final = 0.25  # of what was sent, in the long run; beyond that a key frame is the better repair
WEBRTC_NACK_NUMBERS: Final = 1_024  # read of one RTCP datagram: as many as are remembered; 1500 bytes can name 6,000
WEBRTC_BURST_PACKETS: Final = 32  # to one viewer in one go: 3 ms of the loop by aiortc's sender, 0.1 by ours
WEBRTC_WAITING: Final = 1_000  # offers and handshakes in the queue: three seconds of them
WEBRTC_SLICE_SECONDS: Final = 0.002  # of sending before the loop does other work: who waits for it waits below 5 ms
WEBRTC_BURST_SECONDS: Final = 0.002  # between two bursts: 150 Mbit/s, a key frame of 500 kB in 26 ms
RTP_PAYLOAD_BYTES: Final = 1_200  # fits 1280 (IPv6 minimum) with RTP, SRTP, UDP and IP around it
RTP_SOUND_SAMPLES: Final = 480  # 60 ms of G.711 in a packet

# Load generator
BENCH_STREAMS: Final = 4_096  # cameras in one sending thread: ten times what one core receives
BENCH_VIEWERS: Final = 8_192  # connections that one thread empties: as many as HTTP_CONNECTIONS
BENCH_PENDING_BYTES: Final = 1 << 20  # unsent of one TCP camera before packets are dropped: two seconds of 4 Mbit/s
