package config

import (
	"log/slog"
	"os"
	"time"
)

// Worker is the settings of the worker process.
type Worker struct {
	Temporal  Temporal `yaml:"temporal"`
	TaskQueue string   `yaml:"task_queue"`
	// Listen is host:port of /metrics, /healthz and /readyz; port 0: any free one. It shows agents' names and should stay within.
	Listen string `yaml:"listen"`
	// Traffic, Metrics and Notify are the targets that rollouts name.
	Traffic      map[string]TrafficTarget `yaml:"traffic"`
	Metrics      map[string]MetricsTarget `yaml:"metrics"`
	Notify       map[string]NotifyTarget  `yaml:"notify"`
	Sweep        Sweep                    `yaml:"sweep"`
	Versioning   *Versioning              `yaml:"versioning"`    // nil: the worker is not versioned
	GracefulStop time.Duration            `yaml:"graceful_stop"` // how long activities may take to hand over when the worker stops
	Log          Log                      `yaml:"log"`
}

// Temporal says how to reach the Temporal service. Every field is optional; the environment (TEMPORAL_ADDRESS and the like) wins
// over what is set here, and Temporal's own profiles fill in the rest.
type Temporal struct {
	Address   string       `yaml:"address"` // host:port
	Namespace string       `yaml:"namespace"`
	Profile   string       `yaml:"profile"` // of Temporal's own configuration file
	TLS       *TemporalTLS `yaml:"tls"`     // nil: as the profile says, plain text without one
	APIKey    Secret       `yaml:"api_key"`
}

// TemporalTLS secures the connection. Its presence alone switches TLS on.
type TemporalTLS struct {
	CA         Path   `yaml:"ca_file"`   // empty: the system's authorities
	Cert       Path   `yaml:"cert_file"` // of the client, with Key
	Key        Path   `yaml:"key_file"`
	ServerName string `yaml:"server_name"` // empty: the address's host
}

// MetricsTarget is a source of metrics that rollouts may name.
type MetricsTarget struct {
	Provider    string        `yaml:"provider"`     // router | prometheus | http | sql
	Gateways    []string      `yaml:"gateways"`     // router: the admin API's URL of every replica
	GatewaysDNS string        `yaml:"gateways_dns"` // router, instead: one URL whose host has the addresses of all replicas
	Address     string        `yaml:"address"`      // prometheus, http: its URL
	TLS         *ClientTLS    `yaml:"tls"`          // of https addresses; nil: the system's authorities
	Token       Secret        `yaml:"token"`        // router: of the admin API; prometheus, http: a bearer token
	Timeout     time.Duration `yaml:"timeout"`      // of one call; 0: the provider's own

	User        string        `yaml:"user"`         // http: makes the token a password (basic authentication)
	TokenHeader string        `yaml:"token_header"` // http: the header that the token goes into as it is; empty: Authorization: Bearer
	DSN         Secret        `yaml:"dsn"`          // sql: of PostgreSQL, such as postgres://user:password@host/database
	Delay       time.Duration `yaml:"delay"`        // http, sql: how old numbers are once they are complete; they are asked for that much later
}

// ClientTLS says whom a target's client trusts, and what it shows of itself. The certificate is read again for every connection.
type ClientTLS struct {
	CA         Path   `yaml:"ca_file"`   // empty: the system's authorities
	Cert       Path   `yaml:"cert_file"` // of the client, with Key, for servers that ask for one
	Key        Path   `yaml:"key_file"`
	ServerName string `yaml:"server_name"` // that the server's certificate is for; empty: the address's host
}

// NotifyTarget is a way to tell people. Exactly one field is set.
type NotifyTarget struct {
	Slack   *SlackTarget   `yaml:"slack"`
	Webhook *WebhookTarget `yaml:"webhook"`
}

// SlackTarget is a Slack workspace.
type SlackTarget struct {
	Token  Secret `yaml:"token"`   // a bot token
	APIURL string `yaml:"api_url"` // with a slash at its end; empty: Slack's own
}

// WebhookTarget is an HTTP endpoint that takes notices as JSON.
type WebhookTarget struct {
	URL     string            `yaml:"url"`
	Secret  Secret            `yaml:"secret"`  // signs the body; not set: unsigned
	Headers map[string]string `yaml:"headers"` // never secrets
}

// Sweep says how orphaned canaries are found.
type Sweep struct {
	Every    time.Duration `yaml:"every"`
	Disabled bool          `yaml:"disabled"`
}

// Versioning is Temporal's worker deployment versioning.
type Versioning struct {
	Deployment string `yaml:"deployment"`
	BuildID    string `yaml:"build_id"`
}

// Log says what is logged.
type Log struct {
	Level  slog.Level `yaml:"level"`  // debug | info | warn | error
	Format string     `yaml:"format"` // text | json
}

// DefaultWorker is the settings of a worker that names no targets.
func DefaultWorker() Worker {
	return Worker{
		TaskQueue: "aviary", Listen: "127.0.0.1:9464",
		Sweep: Sweep{Every: 5 * time.Minute}, GracefulStop: 20 * time.Second,
		Log: Log{Level: slog.LevelInfo, Format: "text"},
	}
}

// LoadWorker is ParseWorker of the file at path, with the process's environment.
func LoadWorker(path string) (Worker, error) {
	data, err := read(path)
	if err != nil {
		return Worker{}, err
	}
	return ParseWorker(path, data, os.LookupEnv)
}

// ParseWorker is the settings in data, with defaults filled in and secrets read. Relative paths are relative to the folder of
// filename. Errors are Problems.
func ParseWorker(filename string, data []byte, lookup Lookup) (Worker, error) {
	w := DefaultWorker()
	d, err := settings(filename, data, lookup, &w)
	if err != nil {
		return Worker{}, err
	}
	w.check(d.report)
	if err := d.problems.err(); err != nil {
		return Worker{}, err
	}
	return w, nil
}
