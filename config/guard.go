package config

import (
	"log/slog"
	"os"
)

// Guard is the settings of the guard: the data planes whose leases it watches, and nothing that rollouts have secrets for.
type Guard struct {
	// Listen is host:port of /metrics, /healthz and /readyz; port 0: any free one. It shows agents' names and should stay within.
	Listen  string                   `yaml:"listen"`
	Traffic map[string]TrafficTarget `yaml:"traffic"`
	Log     Log                      `yaml:"log"`
}

// DefaultGuard is the settings of a guard that watches nothing.
func DefaultGuard() Guard {
	return Guard{Listen: "127.0.0.1:9465", Log: Log{Level: slog.LevelInfo, Format: LogText}}
}

// LoadGuard is ParseGuard of the file at path, with the process's environment.
func LoadGuard(path string) (Guard, error) {
	data, err := read(path)
	if err != nil {
		return Guard{}, err
	}
	return ParseGuard(path, data, os.LookupEnv)
}

// ParseGuard is the settings in data, with defaults filled in. Relative paths are relative to the folder of filename. Errors are
// Problems.
func ParseGuard(filename string, data []byte, lookup Lookup) (Guard, error) {
	g := DefaultGuard()
	d, err := settings(filename, data, lookup, &g)
	if err != nil {
		return Guard{}, err
	}
	g.check(d.report)
	if err := d.problems.err(); err != nil {
		return Guard{}, err
	}
	return g, nil
}

func (g Guard) check(r report) {
	checkListen(g.Listen, "listen", r)
	if len(g.Traffic) == 0 {
		r("traffic", "is missing, want at least one target, such as default: {driver: istio, namespaces: [agents]}")
	}
	eachTarget(g.Traffic, "traffic", r, func(t TrafficTarget, r report) {
		t.check(r)
		if t.Driver == DriverRouter || t.Driver == DriverWebhook {
			r("driver", "%s keeps leases itself, want %s here", t.Driver, oneOf(DriverIstio, DriverGatewayAPI, DriverFlagd))
		}
	})
	checkLog(g.Log, r.under("log"))
}

func checkLog(l Log, r report) {
	if l.Format != LogText && l.Format != LogJSON {
		r("format", "%s, want %s", quote(l.Format), oneOf(LogText, LogJSON))
	}
}
