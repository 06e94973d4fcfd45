package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/admin"
	"github.com/aviary-rollouts/aviary/router/proxy"
)

// tick is how often leases are looked at for live streams to end.
const tick = 100 * time.Millisecond

// gateway is the process, ready to run.
type gateway struct {
	settings config.Gateway
	log      *slog.Logger
	router   *router.Router
	proxy    *proxy.Proxy
	admin    http.Handler
	proxyTLS *identity // nil: plain HTTP
	adminTLS *identity
	stopping atomic.Bool
}

// setup builds the process from its settings, without listening.
func setup(settings config.Gateway, log *slog.Logger) (*gateway, error) {
	tell(settings, log)
	g := &gateway{settings: settings, log: log}
	if !settings.AdminToken.Set() {
		return nil, errors.New("admin token: want admin_token_env or admin_token_file")
	}
	options, err := routerOptions(settings, log)
	if err != nil {
		return nil, err
	}
	if g.router, err = router.New(options); err != nil {
		return nil, err
	}
	proxied, err := proxyOptions(settings, log)
	if err != nil {
		return nil, err
	}
	if g.proxy, err = proxy.New(g.router, proxied); err != nil {
		return nil, err
	}
	if g.proxyTLS, err = newIdentity("proxy", settings.TLS, log); err != nil {
		return nil, err
	}
	if g.adminTLS, err = newIdentity("admin API", settings.AdminTLS, log); err != nil {
		return nil, err
	}
	g.admin, err = admin.New(g.router, admin.Options{
		Token: settings.AdminToken.Reveal(), FeedbackToken: settings.FeedbackToken.Reveal(), Logger: log, Ready: g.ready,
	})
	return g, err
}

func (g *gateway) ready() error {
	if g.stopping.Load() {
		return errors.New("the gateway is stopping")
	}
	return nil
}

// run serves until ctx ends, then lets requests finish until the deadline of the settings.
func (g *gateway) run(ctx context.Context, addrFile string) error {
	proxyListener, adminListener, err := g.listen()
	if err != nil {
		return err
	}
	defer proxyListener.Close()
	defer adminListener.Close()

	live, cut := context.WithCancel(context.Background())
	defer cut()
	front, back := g.frontServer(live), g.backServer()
	go g.proxyTLS.run(live, lookAtCertificates)
	go g.adminTLS.run(live, lookAtCertificates)
	go g.tick(live)
	failed := make(chan error, 2)
	go func() { failed <- serve(front, proxyListener) }()
	go func() { failed <- serve(back, adminListener) }()
	g.log.Info("gateway started", "proxy_addr", proxyListener.Addr().String(), "admin_addr", adminListener.Addr().String(),
		"instance", g.router.Instance(), "version", buildVersion())
	if addrFile != "" {
		if err := writeAddresses(addrFile, proxyListener.Addr(), adminListener.Addr()); err != nil {
			return fmt.Errorf("write the addresses: %w", err)
		}
	}

	select {
	case err = <-failed:
		err = fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	g.stop(front, back, cut)
	return err
}

// tick looks at the leases until ctx ends.
func (g *gateway) tick(ctx context.Context) {
	heap := newHeapTuner()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			g.router.Tick()
			heap.tune()
		}
	}
}

// stop lets requests finish until the deadline, then cuts them. The admin API answers until the end.
func (g *gateway) stop(front, back *http.Server, cut func()) {
	g.stopping.Store(true)
	t := g.settings.Timeouts
	g.log.Info("gateway stopping", "delay", t.ShutdownDelay, "deadline", t.Shutdown)
	time.Sleep(t.ShutdownDelay) // readiness says 503 meanwhile, and everybody is still served
	ctx, cancel := context.WithTimeout(context.Background(), t.Shutdown)
	defer cancel()
	err := front.Shutdown(ctx)
	if err == nil {
		err = g.proxy.Wait(ctx) // upgraded connections, which Shutdown doesn't know
	}
	if err != nil {
		g.log.Warn("requests cut at the deadline", "live", g.proxy.Live())
	}
	cut()
	_ = front.Close()
	g.proxy.Close()
	last, cancelLast := context.WithTimeout(context.Background(), time.Second)
	defer cancelLast()
	if back.Shutdown(last) != nil {
		_ = back.Close()
	}
	g.log.Info("gateway stopped")
}

// writeAddresses writes where the process listens, in one step, so that nobody reads half of it.
func writeAddresses(path string, proxyAddr, adminAddr net.Addr) error {
	raw, err := json.Marshal(map[string]string{"proxy": proxyAddr.String(), "admin": adminAddr.String()})
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if _, err := f.Write(append(raw, '\n')); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
