package config

import "time"

// Gateway is the settings of the gateway process. Durations are text such as "30s". Secrets are never in the file: it names an
// environment variable or another file that holds them. Paths are relative to the file.
type Gateway struct {
	Listen      string `yaml:"listen"`       // of the proxy; port 0: any free one
	AdminListen string `yaml:"admin_listen"` // of the admin API; loopback by default

	AdminToken    Secret `yaml:"admin_token"`    // required
	FeedbackToken Secret `yaml:"feedback_token"` // for agents that report feedback; none: the admin token only

	StateFile Path                    `yaml:"state_file"` // keeps the registry, promotions and fences over a restart; empty: nothing is kept
	Agents    map[string]GatewayAgent `yaml:"agents"`

	PinKeys       []GatewayKey  `yaml:"pin_keys"`       // the first signs, all are valid; none: a random one per process
	PinTTL        time.Duration `yaml:"pin_ttl"`        // of a conversation since its last turn
	DrainDeadline time.Duration `yaml:"drain_deadline"` // of conversations on a canary taken back with on_rollback: drain
	Memory        int           `yaml:"memory"`         // conversations remembered per agent, for feedback by id
	StickyMemory  int           `yaml:"sticky_memory"`  // conversations per agent that keep their version by id, for clients that can't echo a pin; 0: none

	TrustedNetworks []string `yaml:"trusted_networks"` // CIDRs whose X-Canary needs no token
	TrustedProxies  []string `yaml:"trusted_proxies"`  // CIDRs of load balancers, believed about X-Forwarded-*

	Names               GatewayNames    `yaml:"names"`
	KeepFeedbackHeaders bool            `yaml:"keep_feedback_headers"` // pass the agents' X-Agent-Task and the like on to clients
	Timeouts            GatewayTimeouts `yaml:"timeouts"`
	TLS                 *GatewayTLS     `yaml:"tls"`       // of the proxy; nil: plain HTTP
	AdminTLS            *GatewayTLS     `yaml:"admin_tls"` // of the admin API; nil: plain HTTP
	AccessLog           AccessLog       `yaml:"access_log"`
	StartTraces         bool            `yaml:"start_traces"`     // give requests without a traceparent one, marked as sampled; default true
	MaxConnections      int             `yaml:"max_connections"`  // of clients at once, the others wait to be accepted; 0: no limit
	MaxHeaderBytes      int             `yaml:"max_header_bytes"` // of a request's line and headers, about; beyond it: 431
}

// GatewayTLS serves HTTPS. The files are read again when they change.
type GatewayTLS struct {
	CertFile     Path `yaml:"cert_file"`
	KeyFile      Path `yaml:"key_file"`
	ClientCAFile Path `yaml:"client_ca_file"` // clients must show a certificate of these; empty: none is asked for
}

// AccessLog says which requests are logged. Those that failed always are, unless it is off.
type AccessLog struct {
	Sample float64 `yaml:"sample"` // of requests that went well, 0 to 1; default 1
	Off    bool    `yaml:"off"`
}

// GatewayAgent is an agent and where its versions are.
type GatewayAgent struct {
	Stable   string                    `yaml:"stable"`
	Host     string                    `yaml:"host"` // by which clients reach it; empty: any
	Path     string                    `yaml:"path"` // prefix, stripped; empty: /agents/NAME/, or / with a host
	Versions map[string]GatewayVersion `yaml:"versions"`

	Hash        string        `yaml:"hash"`         // of the choice: aviary (default) or flagd, to agree with an OpenFeature SDK
	SideEffects bool          `yaml:"side_effects"` // its requests do things that must not happen twice: never mirrored
	Timeouts    AgentTimeouts `yaml:"timeouts"`
	Limits      AgentLimits   `yaml:"limits"`
}

// AgentTimeouts are one agent's own; 0 is the gateway's.
type AgentTimeouts struct {
	ResponseHeader time.Duration `yaml:"response_header"` // from the request's end to the response's header
	IdleStream     time.Duration `yaml:"idle_stream"`     // between two parts of a response's body; 0: none
}

// AgentLimits bound what one version of an agent is asked at once, so that a slow canary can't take the gateway down.
type AgentLimits struct {
	Concurrency  int           `yaml:"concurrency"`   // requests under way per version; 0: no limit
	Queue        int           `yaml:"queue"`         // requests that wait for their turn; beyond it: 503 with Retry-After
	QueueTimeout time.Duration `yaml:"queue_timeout"` // how long one waits; default 5s
}

// GatewayVersion is where one version of an agent is.
type GatewayVersion struct {
	URL         string            `yaml:"url"`  // http://host:port/path, https, or h2c for HTTP/2 without TLS
	URLs        []string          `yaml:"urls"` // instead of url: several instances of the version, of which the least busy one is asked
	Metadata    map[string]string `yaml:"metadata"`
	Fingerprint string            `yaml:"fingerprint"` // of what the version is made of (model, prompt, tools); may not change under one name
}

// GatewayKey names a secret of at least 16 bytes that signs pins and testers' tokens.
type GatewayKey struct {
	ID     string `yaml:"id"`
	Secret Secret `yaml:",inline"` // file or env, one of which is required
}

// GatewayNames are the headers and cookies the proxy reads and sets. An empty one is the default; "-" turns a cookie off.
type GatewayNames struct {
	Conversation  string `yaml:"conversation_header"`   // X-Conversation-ID
	User          string `yaml:"user_header"`           // X-User-ID
	KeyCookie     string `yaml:"key_cookie"`            // aviary_key
	Pin           string `yaml:"pin_header"`            // X-Aviary-Pin
	PinCookie     string `yaml:"pin_cookie"`            // aviary_pin
	Override      string `yaml:"override_header"`       // X-Canary
	OverrideToken string `yaml:"override_token_header"` // X-Canary-Token
	Version       string `yaml:"version_header"`        // X-Agent-Version
	MigratedFrom  string `yaml:"migrated_from_header"`  // X-Conversation-Migrated-From
	RequestID     string `yaml:"request_id_header"`     // X-Request-ID
}

// GatewayTimeouts bound what may hang. There is none on the whole of a body: agents stream for minutes.
type GatewayTimeouts struct {
	ReadHeader     time.Duration `yaml:"read_header"`     // of a client's request
	Idle           time.Duration `yaml:"idle"`            // of a client's connection between requests
	ClientRead     time.Duration `yaml:"client_read"`     // of a client that sends nothing of a body it announced: 408; 0: none
	ClientWrite    time.Duration `yaml:"client_write"`    // of a client that takes nothing of a response: it is cut off; 0: none
	Dial           time.Duration `yaml:"dial"`            // to an agent
	ResponseHeader time.Duration `yaml:"response_header"` // from an agent
	ShutdownDelay  time.Duration `yaml:"shutdown_delay"`  // from readiness 503 to refusing connections, for load balancers to notice
	Shutdown       time.Duration `yaml:"shutdown"`        // how long streams may go on when the process is told to stop
}

// SetDefaults fills in what is not set.
func (g *Gateway) SetDefaults() {
	text := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	duration := func(field *time.Duration, value time.Duration) {
		if *field == 0 {
			*field = value
		}
	}
	text(&g.Listen, "127.0.0.1:8080")
	text(&g.AdminListen, "127.0.0.1:9901")
	g.AccessLog.Sample = 1
	g.StartTraces = true
	if g.MaxHeaderBytes == 0 {
		g.MaxHeaderBytes = 64 << 10
	}
	duration(&g.PinTTL, 24*time.Hour)
	duration(&g.DrainDeadline, time.Hour)
	if g.Memory == 0 {
		g.Memory = 100_000
	}
	duration(&g.Timeouts.ReadHeader, 10*time.Second)
	duration(&g.Timeouts.Idle, 2*time.Minute)
	duration(&g.Timeouts.ClientRead, time.Minute)
	duration(&g.Timeouts.ClientWrite, time.Minute)
	duration(&g.Timeouts.Dial, 5*time.Second)
	duration(&g.Timeouts.ResponseHeader, 2*time.Minute)
	duration(&g.Timeouts.Shutdown, 30*time.Second)
}
