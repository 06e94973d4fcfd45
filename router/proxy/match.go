package proxy

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/aviary-rollouts/aviary/router"
)

// agentsPrefix leads to agents that have no Match of their own.
const agentsPrefix = "/agents/"

// matcher finds the agent a request is for: by host and path, the longest path first.
type matcher struct {
	entries []entry
	named   map[string]bool // agents that have a Match of their own
}

type entry struct{ agent, host, path string }

func newMatcher(agents map[string]Match) (matcher, error) {
	m := matcher{named: map[string]bool{}}
	taken := map[Match]string{}
	for _, agent := range slices.Sorted(maps.Keys(agents)) {
		x := agents[agent]
		if x == (Match{}) {
			continue
		}
		e := entry{agent: agent, host: strings.ToLower(x.Host), path: x.Path}
		if e.path == "" {
			e.path = "/"
		}
		if !strings.HasPrefix(e.path, "/") || !strings.HasSuffix(e.path, "/") || dotted(e.path) || strings.Contains(e.path, "//") {
			return matcher{}, fmt.Errorf("path %q of agent %s: want a prefix such as /support/, with / at both ends", x.Path, agent)
		}
		if strings.ContainsAny(e.host, "/: ") {
			return matcher{}, fmt.Errorf("host %q of agent %s: want a host name without port", x.Host, agent)
		}
		if e.host == "" && strings.HasPrefix(e.path, agentsPrefix) && e.path != agentsPrefix+agent+"/" {
			return matcher{}, fmt.Errorf("path %q of agent %s: %s is for agents by their own names", x.Path, agent, agentsPrefix)
		}
		key := Match{Host: e.host, Path: e.path}
		if other := taken[key]; other != "" {
			return matcher{}, fmt.Errorf("agents %s and %s have the same host %q and path %q", other, agent, x.Host, x.Path)
		}
		taken[key] = agent
		m.named[agent] = true
		m.entries = append(m.entries, e)
	}
	slices.SortStableFunc(m.entries, func(a, b entry) int {
		if (a.host == "") != (b.host == "") {
			return len(b.host) - len(a.host) // an entry with a host goes before all without
		}
		return len(b.path) - len(a.path)
	})
	return m, nil
}

// match is the agent that req is for, and the prefix of the path that led to it. Hosts go first, then agents' own names, then
// paths: an agent's name is never hidden by another's path.
func (m matcher) match(req *http.Request, r *router.Router) (agent, prefix string, ok bool) {
	host := ""
	for _, e := range m.entries {
		if e.host == "" {
			break // they come last
		}
		if host == "" {
			host = hostname(req.Host)
		}
		if e.host == host && prefixed(req, e.path) {
			return e.agent, e.path, true
		}
	}
	if name, found := byName(req.URL.Path); found && !m.named[name] && r.Knows(name) {
		prefix = agentsPrefix + name + "/"
		return name, prefix, prefixed(req, prefix)
	}
	for _, e := range m.entries {
		if e.host == "" && prefixed(req, e.path) {
			return e.agent, e.path, true
		}
	}
	return "", "", false
}

// byName is the agent's name in a path such as /agents/NAME/chat.
func byName(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, agentsPrefix)
	if !ok {
		return "", false
	}
	name, _, _ := strings.Cut(rest, "/")
	return name, name != ""
}

// prefixed reports whether the request's path is under prefix, which ends with /, however it is escaped.
func prefixed(req *http.Request, prefix string) bool {
	under := func(p string) bool { return strings.HasPrefix(p, prefix) || p == prefix[:len(prefix)-1] }
	return under(req.URL.Path) && (req.URL.RawPath == "" || under(req.URL.RawPath))
}

// strip takes prefix, which ends with /, off a path, and leaves the / in front.
func strip(path, prefix string) string {
	if path == "" {
		return ""
	}
	if len(path) < len(prefix) {
		return "/"
	}
	return path[len(prefix)-1:]
}

func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
