package router

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/aviary-rollouts/aviary/router/api"
)

// HeaderFingerprint is the response header by which an agent says what it is made of: model, prompt, tools. It is how a change
// behind an address is noticed at all.
const HeaderFingerprint = "X-Agent-Fingerprint"

const (
	maxFingerprint = 128 // bytes
	maxReported    = 8   // different ones that a version is remembered to have reported
)

// declared is the fingerprint that a version is registered with: its own, else one of its metadata. Empty: none is known.
func declared(v api.Version) string {
	if v.Fingerprint != "" || len(v.Metadata) == 0 {
		return v.Fingerprint
	}
	sum := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(v.Metadata)) {
		fmt.Fprintf(sum, "%q=%q\n", k, v.Metadata[k])
	}
	return "metadata:" + hex.EncodeToString(sum.Sum(nil)[:6])
}

func checkFingerprint(s string) error {
	if len(s) > maxFingerprint || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("fingerprint %.40q: want at most %d visible ASCII characters", s, maxFingerprint)
	}
	return nil
}

// identity is what a version is known to be made of, over all that is registered under its name. It is safe for concurrent use.
type identity struct {
	last atomic.Pointer[string] // that was reported, so that most answers cost one comparison

	mu       sync.Mutex
	declared string
	reported []string // the different ones, oldest first
	changes  int64    // under this name
}

// declare notes the fingerprint of a registration, and reports whether it changed. An unknown one never changes anything.
func (i *identity) declare(fingerprint string) (before string, changed bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	before = i.declared
	if fingerprint == "" || fingerprint == before {
		return before, false
	}
	i.declared = fingerprint
	if before == "" {
		return before, false
	}
	i.changes++
	i.reported = nil // of what it was before
	i.last.Store(nil)
	return before, true
}

// report notes what an answer says of its version, and reports whether the version has changed: another fingerprint than the
// first one reported. Each counts once, so that a rolling restart, or two instances that differ, are told of once.
func (i *identity) report(fingerprint string) (before string, changed bool) {
	if last := i.last.Load(); last != nil && *last == fingerprint {
		return "", false
	}
	if checkFingerprint(fingerprint) != nil {
		return "", false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.last.Store(&fingerprint)
	if slices.Contains(i.reported, fingerprint) || len(i.reported) >= maxReported {
		return "", false
	}
	i.reported = append(i.reported, fingerprint)
	if len(i.reported) == 1 {
		return "", false
	}
	i.changes++
	return i.reported[len(i.reported)-2], true
}

func (i *identity) count() int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.changes
}

// Reported notes the fingerprint that the answer of the version of d reports in h, if it does. A version that changes under its
// name is told of in the log, in Observed and in the metrics: nobody can say any more what a rollout compares.
func (r *Router) Reported(d *Decision, h http.Header) {
	values := h[HeaderFingerprint]
	if len(values) != 1 || values[0] == "" {
		return
	}
	if before, changed := d.version.identity.report(values[0]); changed {
		r.log.Warn("version changed under its name: it reports another fingerprint", "agent", d.Agent, "version", d.Version,
			"before", before, "now", values[0])
	}
}

// renamed refuses a registration under a name whose fingerprint is another, while a rollout compares that version; else it only
// tells of the change. The caller holds r.mu.
func (r *Router) renamed(s *agentState, version string, v api.Version) error {
	old, now := s.versions[version], declared(v)
	if old == nil || now == "" {
		return nil
	}
	before := old.identity.fingerprint()
	if before == "" || before == now {
		return nil
	}
	if s.live(r.clock.Mono()) && (version == s.route.Stable || version == s.route.Canary) {
		return &Refusal{Code: api.CodeInUse, Message: fmt.Sprintf(
			"version %s of %s has the fingerprint %s and is compared by rollout %s: register what has %s under a new name",
			version, s.name, before, s.route.Owner, now)}
	}
	return nil
}

func (i *identity) fingerprint() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.declared
}

// changesNow are the changes of all versions' identities so far.
func (s *agentState) changesNow() map[string]int64 {
	out := make(map[string]int64, len(s.versions))
	for name, v := range s.versions {
		out[name] = v.identity.count()
	}
	return out
}

// compareFingerprints tells of versions that are another than before the restart. Refusing them would be an outage.
func (r *Router) compareFingerprints(s *agentState, before map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(before)) {
		v := s.versions[name]
		if v == nil {
			continue
		}
		if now := v.identity.fingerprint(); now != "" && now != before[name] {
			v.identity.restarted()
			r.log.Warn("version changed under its name: the settings have another fingerprint than before the restart",
				"agent", s.name, "version", name, "before", before[name], "now", now)
		}
	}
}

// restarted counts a change that happened while no process looked.
func (i *identity) restarted() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.changes++
}
