package router

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/aviary-rollouts/aviary/router/api"
)

// stateFormat is the version of the state file.
const stateFormat = 2

type savedState struct {
	Format int                   `json:"format"`
	Agents map[string]savedAgent `json:"agents"`
}

type savedAgent struct {
	Stable        string                 `json:"stable"`
	Configured    string                 `json:"configured_stable,omitempty"` // by the settings of then
	Versions      map[string]api.Version `json:"versions,omitempty"`          // those not from the settings
	Route         *api.Route             `json:"route,omitempty"`
	Epoch         uint64                 `json:"epoch"`
	VoidedEpoch   uint64                 `json:"voided_epoch,omitempty"`   // since format 2
	PreviousEpoch uint64                 `json:"previous_epoch,omitempty"` // since format 2 it is one of the counter's values
	Rollbacks     int                    `json:"rollbacks,omitempty"`      // in format 1 only
	DrainUntil    *time.Time             `json:"drain_until,omitempty"`
	Owners        []savedOwner           `json:"owners,omitempty"`
	Fingerprints  map[string]string      `json:"fingerprints,omitempty"` // as registered, by version
}

type savedOwner struct {
	Owner    string `json:"owner"`
	Revision int64  `json:"revision"`
}

// save writes the state file, if there is one, so that a crash leaves either the old or the new one.
func (r *Router) save() error {
	if r.path == "" {
		r.unsaved = false
		return nil
	}
	state := savedState{Format: stateFormat, Agents: make(map[string]savedAgent, len(r.agents))}
	now, wall := r.clock.Mono(), r.clock.Wall()
	for name, s := range r.agents {
		state.Agents[name] = s.saved(now, wall)
	}
	raw, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the state: %w", err)
	}
	if err := replaceFile(r.path, append(raw, '\n')); err != nil {
		return fmt.Errorf("save the state: %w", err)
	}
	r.unsaved = false
	return nil
}

func (s *agentState) saved(now time.Duration, wall time.Time) savedAgent {
	out := savedAgent{
		Stable: s.stable, Configured: s.configured, Epoch: s.epochs.now, VoidedEpoch: s.epochs.voided, PreviousEpoch: s.epochs.drained,
		Owners: s.owners, Versions: make(map[string]api.Version), Fingerprints: make(map[string]string),
	}
	for name, v := range s.versions {
		if f := v.identity.fingerprint(); f != "" {
			out.Fingerprints[name] = f
		}
		if !v.fixed {
			out.Versions[name] = v.spec
		}
	}
	if s.route.Owner != "" {
		out.Route = &s.route
	}
	if s.route.Rollback && s.route.OnRollback == api.Drain {
		until := wall.Add(s.drainUntil - now).UTC()
		out.DrainUntil = &until
	}
	return out
}

func replaceFile(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(content); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// writable tries whether the state file could be written, so that it is not found out at the first promotion.
func (r *Router) writable() error {
	if r.path == "" {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(r.path), filepath.Base(r.path)+".*")
	if err != nil {
		return fmt.Errorf("the state file %s could not be written: %w", r.path, err)
	}
	_, err = f.WriteString("test\n")
	if err := errors.Join(err, f.Close(), os.Remove(f.Name())); err != nil {
		return fmt.Errorf("the state file %s could not be written: %w", r.path, err)
	}
	return nil
}

// load reads the state file, if there is one. A damaged one is an error: without it the fence and a promotion would be lost.
func (r *Router) load() error {
	if r.path == "" {
		return nil
	}
	raw, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	var state savedState
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&state); err != nil {
		return fmt.Errorf("state file %s: %w; mend it, or remove it to start without promotions and fences", r.path, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("state file %s holds more than one document", r.path)
	}
	if state.Format < 1 || state.Format > stateFormat {
		return fmt.Errorf("state file %s has format %d: want 1 to %d", r.path, state.Format, stateFormat)
	}
	for name, saved := range state.Agents {
		if state.Format == 1 {
			saved.countEpochs()
		}
		if err := r.restore(name, saved); err != nil {
			return fmt.Errorf("state file %s: %w", r.path, err)
		}
	}
	return nil
}

// countEpochs turns the epochs of format 1, which were hashes, into the counter. Hashes have no order, so none is kept: an agent
// whose pins were never voided is at 0, as its pins are, and any other at 1. Pins to stable hold all the same. Pins that
// carry a hash to another version don't: such a conversation is chosen anew by its key, which leads to the canary again while
// the weight has not fallen. A drain under way goes on for pins from before the first rollback.
func (a *savedAgent) countEpochs() {
	a.Epoch, a.PreviousEpoch, a.Rollbacks = min(a.Epoch, 1), 0, 0
	if a.Route != nil && a.Route.Rollback {
		a.VoidedEpoch = a.Epoch
	}
}

// restore brings one agent back. Its canary waits for a renewal: until then new conversations go to stable, while the owner
// and the pins of before hold for one more lease, since the clock that timed it is gone.
func (r *Router) restore(name string, saved savedAgent) error {
	s := r.agents[name]
	if s == nil {
		if len(saved.Versions) == 0 {
			r.log.Warn("agent is no longer in the settings", "agent", name)
			return nil
		}
		s = r.newAgent(name)
	}
	for version, v := range saved.Versions {
		urls, err := checkVersion(name, version, v)
		if err != nil {
			return err
		}
		if s.versions[version] == nil {
			s.setVersion(r.newVersion(name, version, urls, v, s.limits, nil))
		}
	}
	switch {
	case s.configured != "" && s.configured != saved.Configured:
		r.log.Warn("stable version by the settings, which changed", "agent", name, "stable", s.configured, "before", saved.Stable)
	case s.versions[saved.Stable] == nil && s.configured == "":
		return fmt.Errorf("stable version of agent %s: %w", name, s.unknownVersion(saved.Stable))
	case s.versions[saved.Stable] == nil:
		r.log.Warn("stable version is no longer registered", "agent", name, "stable", s.configured, "before", saved.Stable)
	default:
		s.stable = saved.Stable
	}
	r.compareFingerprints(s, saved.Fingerprints)
	s.epochs = epochs{now: saved.Epoch, voided: saved.VoidedEpoch, drained: saved.PreviousEpoch}
	s.owners = saved.Owners
	r.agents[name] = s
	if saved.Route == nil {
		return nil
	}
	if err := checkShape(*saved.Route); err != nil {
		return fmt.Errorf("route of agent %s: %w", name, err)
	}
	now := r.clock.Mono()
	s.route, s.cold = *saved.Route, true
	s.leased, s.leaseUntil = s.route.LeaseMillis > 0, now+s.route.Lease()
	if saved.DrainUntil != nil {
		s.drainUntil = now + min(r.drain, max(0, saved.DrainUntil.Sub(r.clock.Wall())))
	}
	return nil
}
