package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"syscall"
	"time"

	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/router"
)

// lookEvery is how often the settings file is looked at. A signal (SIGHUP) makes it at once.
const lookEvery = 2 * time.Second

const lookTwice = 2 // before a file that can't be read is told of

// reloader takes over the agents of a settings file that changes while the process runs. Everything else needs a restart.
type reloader struct {
	g    *gateway
	path string
	sum  [sha256.Size]byte // of the file's content when it was last looked at
	hup  <-chan os.Signal  // asks to look at once
	gone int               // how often in a row the file could not be read
}

// hangups are the SIGHUPs from now on, to the end of the process: without a receiver one would end it, and its streams.
func hangups() <-chan os.Signal {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	return hup
}

func newReloader(g *gateway, path string, hup <-chan os.Signal) (*reloader, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return &reloader{g: g, path: path, sum: sha256.Sum256(raw), hup: hup}, nil
}

// run looks at the file until ctx ends. By its content, not its time: a mounted file may be swapped for one that is older.
func (r *reloader) run(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.hup:
			r.look(true)
		case <-ticker.C:
			r.look(false)
		}
	}
}

// look takes the settings over if they changed, or if it must. Whatever is wrong with them, those of before stay in force.
func (r *reloader) look(must bool) {
	raw, err := os.ReadFile(r.path)
	if err != nil {
		// It may be between two versions: one that stays away is told of, once.
		if r.gone++; must || r.gone == lookTwice {
			r.g.log.Error("settings not read again, those of before stay", "error", err)
		}
		return
	}
	r.gone = 0
	sum := sha256.Sum256(raw)
	if bytes.Equal(sum[:], r.sum[:]) && !must {
		return
	}
	r.sum = sum
	if err := r.take(raw); err != nil {
		r.g.log.Error("settings not taken over, those of before stay", "file", r.path, "error", err)
	}
}

func (r *reloader) take(raw []byte) error {
	settings, err := config.ParseGateway(r.path, raw, os.LookupEnv)
	if err != nil {
		return err
	}
	if names := restartNeeded(r.g.settings, settings); len(names) > 0 {
		r.g.log.Warn("these settings changed, and need a restart", "settings", names)
	}
	options, err := proxyOptions(settings, r.g.log)
	if err != nil {
		return err
	}
	reached, err := r.g.proxy.Prepare(options.Agents, options.Timeouts)
	if err != nil {
		return err
	}
	err = r.g.router.Reconfigure(agentOptions(settings))
	if err != nil && !errors.Is(err, router.ErrNotSaved) {
		return fmt.Errorf("agents: %w", err)
	}
	reached()
	r.g.settings.Agents = settings.Agents
	r.g.log.Info("settings taken over", "agents", len(settings.Agents))
	if err != nil {
		r.g.log.Error("the settings are in force, but the state is not saved; trying on", "error", err)
	}
	return nil
}

// restartNeeded are the settings that differ, but for the agents, by the names they have in the file.
func restartNeeded(before, now config.Gateway) (names []string) {
	b, n := reflect.ValueOf(before), reflect.ValueOf(now)
	for i := range b.NumField() {
		name := b.Type().Field(i).Tag.Get("yaml")
		if name != "agents" && !reflect.DeepEqual(b.Field(i).Interface(), n.Field(i).Interface()) {
			names = append(names, name)
		}
	}
	return names
}
