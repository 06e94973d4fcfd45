package router

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"regexp"
	"slices"

	"github.com/aviary-rollouts/aviary/router/api"
	"github.com/aviary-rollouts/aviary/router/upstream"
)

// The bounds of the registry: every version costs memory and metric series.
const (
	maxAgents    = 1000
	maxVersions  = 256 // of one agent
	maxMetadata  = 32  // entries of one version
	maxInstances = 64  // of one version
)

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

const namePattern = `[a-z0-9][a-z0-9._-]{0,62}`

// Refusal says why a request can't be granted, whoever asks and however often.
type Refusal struct {
	Code    string // one of the api's codes
	Message string
	Known   []string // with an unknown agent or version: what is known, sorted
}

func (e *Refusal) Error() string { return e.Message }

func (r *Router) unknownAgent(agent string) *Refusal {
	known := slices.Sorted(maps.Keys(r.agents))
	return &Refusal{Code: api.CodeUnknownAgent, Known: known, Message: fmt.Sprintf("agent %q is not known: want one of %q", agent, known)}
}

func (s *agentState) unknownVersion(version string) *Refusal {
	known := slices.Sorted(maps.Keys(s.versions))
	return &Refusal{Code: api.CodeUnknownVersion, Known: known,
		Message: fmt.Sprintf("agent %s has no version %q: want one of %q", s.name, version, known)}
}

// Agents is the registry, sorted by name.
func (r *Router) Agents() []api.Agent {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]api.Agent, 0, len(r.agents))
	for _, name := range slices.Sorted(maps.Keys(r.agents)) {
		out = append(out, r.agents[name].agent())
	}
	return out
}

// Knows reports whether agent is in the registry. It takes no lock.
func (r *Router) Knows(agent string) bool { return r.table.Load().agents[agent] != nil }

// Stable is the stable version of agent, and Canary the other one of its route; empty when there is none. It takes no lock.
func (r *Router) Stable(agent string) string {
	if a := r.table.Load().agents[agent]; a != nil {
		return a.stable
	}
	return ""
}

// Canary is the canary that agent's route names; empty when there is none. It takes no lock.
func (r *Router) Canary(agent string) string {
	if a := r.table.Load().agents[agent]; a != nil {
		return a.canary
	}
	return ""
}

func (s *agentState) agent() api.Agent {
	a := api.Agent{Name: s.name, Stable: s.stable, Versions: make(map[string]api.Version, len(s.versions))}
	for name, v := range s.versions {
		a.Versions[name] = v.spec.Clone()
	}
	return a
}

// PutVersion adds or replaces a version of agent, and the agent if it is new; the first version of a new agent is its stable
// one. Errors: *Refusal, or that the state was not saved (the version is in force).
func (r *Router) PutVersion(agent, version string, v api.Version) (api.Agent, error) {
	urls, err := checkVersion(agent, version, v)
	if err != nil {
		return api.Agent{}, &Refusal{Code: api.CodeInvalid, Message: err.Error()}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.agents[agent]
	if s == nil {
		if len(r.agents) >= maxAgents {
			return api.Agent{}, &Refusal{Code: api.CodeInvalid, Message: fmt.Sprintf("there are %d agents: no more are allowed", maxAgents)}
		}
		s = r.newAgent(agent)
		s.stable = version
	}
	old := s.versions[version]
	switch {
	case old != nil && old.fixed && !reflect.DeepEqual(old.spec, specOf(urls, v)):
		return api.Agent{}, &Refusal{Code: api.CodeInUse, Message: fmt.Sprintf("version %s of %s comes from the settings: change it there", version, agent)}
	case old != nil && old.fixed:
		return s.agent(), nil
	case old == nil && len(s.versions) >= maxVersions:
		return api.Agent{}, &Refusal{Code: api.CodeInvalid, Message: fmt.Sprintf("agent %s has %d versions: delete one first", agent, maxVersions)}
	}
	if err := r.renamed(s, version, v); err != nil {
		return api.Agent{}, err
	}
	r.agents[agent] = s
	s.setVersion(r.newVersion(agent, version, urls, v, s.limits, old))
	r.publish()
	r.unsaved = true
	r.log.Info("version registered", "agent", agent, "version", version, "urls", texts(urls))
	if err := r.save(); err != nil {
		return s.agent(), fmt.Errorf("version %s of %s is registered, but a restart would forget it: %w", version, agent, err)
	}
	return s.agent(), nil
}

// DeleteVersion forgets a version. Errors: *Refusal for one that is stable, canary, from the settings or unknown, or that the
// state was not saved (the version is gone).
func (r *Router) DeleteVersion(agent, version string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.agents[agent]
	if s == nil {
		return r.unknownAgent(agent)
	}
	v := s.versions[version]
	if v == nil {
		return s.unknownVersion(version)
	}
	inUse := ""
	switch {
	case version == s.stable:
		inUse = "is its stable version"
	case version == s.route.Canary && (!s.route.Rollback || s.route.OnRollback == api.Drain && r.clock.Mono() < s.drainUntil):
		inUse = "is the canary of a rollout"
	case v.fixed:
		inUse = "comes from the settings"
	}
	if inUse != "" {
		return &Refusal{Code: api.CodeInUse, Message: fmt.Sprintf("version %s of %s %s", version, agent, inUse)}
	}
	s.versions = maps.Clone(s.versions)
	delete(s.versions, version)
	r.publish()
	r.unsaved = true
	r.log.Info("version deleted", "agent", agent, "version", version)
	if err := r.save(); err != nil {
		return fmt.Errorf("version %s of %s is deleted, but a restart would bring it back: %w", version, agent, err)
	}
	return nil
}

// addConfigured adds an agent of the settings.
func (r *Router) addConfigured(name string, o AgentOptions) error {
	flagd, err := hashIsFlagd(o.Hash)
	if err != nil {
		return fmt.Errorf("agent %s: %w", name, err)
	}
	if err := o.Limits.Check(); err != nil {
		return fmt.Errorf("limits of agent %s: %w", name, err)
	}
	s := r.newAgent(name)
	s.stable, s.configured, s.flagd, s.limits = o.Stable, o.Stable, flagd, o.Limits
	s.sideEffects = o.SideEffects
	for _, version := range slices.Sorted(maps.Keys(o.Versions)) {
		v, err := r.configured(name, version, o.Versions[version], o.Limits, nil)
		if err != nil {
			return err
		}
		s.setVersion(v)
	}
	if s.versions[o.Stable] == nil {
		return fmt.Errorf("stable version of agent %s: %w", name, s.unknownVersion(o.Stable))
	}
	r.agents[name] = s
	return nil
}

func (r *Router) newAgent(name string) *agentState {
	return &agentState{name: name, drops: new(mirrorDrops), born: r.clock.Mono(), versions: map[string]*Version{}, recall: newRecall(max((r.memory+1)/2, r.sticky)), sticky: r.sticky > 0, seen: newIDSet(r.memory)}
}

// newVersion takes over what goes on at the old one of that name, if there is one.
func (r *Router) newVersion(agent, version string, urls []*url.URL, o api.Version, limits upstream.Limits, old *Version) *Version {
	v := &Version{
		name: version, spec: specOf(urls, o),
		stats: r.statsOf(agent, version), streams: new(Streams), copies: new(Streams), identity: new(identity),
	}
	if old != nil {
		v.streams, v.copies, v.identity, v.upstreams = old.streams, old.copies, old.identity, old.upstreams
		v.upstreams.Update(urls, limits)
	} else {
		v.upstreams = upstream.New(urls, limits, func(i *upstream.Instance, leftOut bool) {
			if leftOut {
				r.log.Warn("instance can't be reached: left out until a connection can be made", "agent", agent, "version", version, "instance", i.URL().Host)
			} else {
				r.log.Info("instance can be reached again", "agent", agent, "version", version, "instance", i.URL().Host)
			}
		})
	}
	if before, changed := v.identity.declare(declared(o)); changed {
		r.log.Warn("version changed under its name: it is registered with another fingerprint", "agent", agent, "version", version,
			"before", before, "now", declared(o))
	}
	return v
}

// setVersion replaces the map, which a published table may hold.
func (s *agentState) setVersion(v *Version) {
	s.versions = maps.Clone(s.versions)
	s.versions[v.name] = v
}

// specOf is the version as it is registered, with its addresses in their usual form.
func specOf(urls []*url.URL, v api.Version) api.Version {
	v = v.Clone()
	v.URL, v.URLs = "", texts(urls)
	if len(urls) == 1 {
		v.URL, v.URLs = v.URLs[0], nil
	}
	if len(v.Metadata) == 0 {
		v.Metadata = nil
	}
	return v
}

func texts(urls []*url.URL) []string {
	out := make([]string, 0, len(urls))
	for _, u := range urls {
		out = append(out, u.String())
	}
	return out
}

// checkVersion is the base URLs of a version, of which there is at least one.
func checkVersion(agent, version string, v api.Version) ([]*url.URL, error) {
	if !validName.MatchString(agent) {
		return nil, fmt.Errorf("agent name %q: want %s", agent, namePattern)
	}
	if !validName.MatchString(version) {
		return nil, fmt.Errorf("version name %q of agent %s: want %s", version, agent, namePattern)
	}
	urls, err := parseURLs(v)
	if err != nil {
		return nil, fmt.Errorf("url of version %s of agent %s: %w", version, agent, err)
	}
	if len(v.Metadata) > maxMetadata {
		return nil, fmt.Errorf("metadata of version %s of agent %s has %d entries: want at most %d", version, agent, len(v.Metadata), maxMetadata)
	}
	for k, x := range v.Metadata {
		if len(k) > 64 || len(x) > 1024 {
			return nil, fmt.Errorf("metadata %.64q of version %s of agent %s: want at most 64 bytes of name and 1024 of value", k, version, agent)
		}
	}
	if err := checkFingerprint(v.Fingerprint); err != nil {
		return nil, fmt.Errorf("version %s of agent %s: %w", version, agent, err)
	}
	return urls, nil
}

func parseURLs(v api.Version) ([]*url.URL, error) {
	raw := v.URLs
	switch {
	case v.URL != "" && len(raw) > 0:
		return nil, errors.New("url and urls are given, want one of them")
	case v.URL != "":
		raw = []string{v.URL}
	case len(raw) == 0:
		return nil, errors.New("want http://host:port/path, https or h2c, or several in urls")
	case len(raw) > maxInstances:
		return nil, fmt.Errorf("%d instances, want at most %d", len(raw), maxInstances)
	}
	var out []*url.URL
	for _, s := range raw {
		u, err := url.Parse(s)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https" && u.Scheme != upstream.SchemeH2C) || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return nil, errors.New("want http://host:port/path, https or h2c, without user, query and fragment")
		}
		if slices.ContainsFunc(out, func(o *url.URL) bool { return *o == *u }) {
			return nil, fmt.Errorf("%s is there twice", u.Redacted())
		}
		out = append(out, u)
	}
	return out, nil
}
