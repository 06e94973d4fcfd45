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
	stopping atomic.Bool
}

// setup builds the process from its settings, without listening.
func setup(settings config.Gateway, log *slog.Logger) (*gateway, error) {
	if settings.StateFile == "" {
		log.Warn("nothing is kept over a restart, promotions included: set state_file")
	}
	g := &gateway{settings: settings, log: log}
	token, err := secret("admin token", settings.AdminTokenEnv, settings.AdminTokenFile)
	if err != nil {
		return nil, err
	}
	if token == "" {
		return nil, errors.New("admin token: want admin_token_env or admin_token_file")
	}
	feedback, err := secret("feedback token", settings.FeedbackTokenEnv, settings.FeedbackTokenFile)
	if err != nil {
		return nil, err
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
	g.admin, err = admin.New(g.router, admin.Options{Token: token, FeedbackToken: feedback, Logger: log, Ready: g.ready})
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
	proxyListener, err := net.Listen("tcp", g.settings.Listen)
	if err != nil {
		return fmt.Errorf("listen for the proxy: %w", err)
	}
	defer proxyListener.Close()
	adminListener, err := net.Listen("tcp", g.settings.AdminListen)
	if err != nil {
		return fmt.Errorf("listen for the admin API: %w", err)
	}
	defer adminListener.Close()

	live, cut := context.WithCancel(context.Background())
	defer cut()
	t := g.settings.Timeouts
	errorLog := slog.NewLogLogger(g.log.Handler(), slog.LevelWarn)
	// No WriteTimeout and no ReadTimeout: agents stream for minutes, and so may clients.
	front := &http.Server{
		Handler: g.proxy, ReadHeaderTimeout: t.ReadHeader, IdleTimeout: t.Idle, MaxHeaderBytes: 64 << 10, ErrorLog: errorLog,
		BaseContext: func(net.Listener) context.Context { return live }, Protocols: new(http.Protocols),
	}
	front.Protocols.SetHTTP1(true)
	front.Protocols.SetUnencryptedHTTP2(true)
	back := &http.Server{
		Handler: g.admin, ReadHeaderTimeout: t.ReadHeader, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute,
		IdleTimeout: t.Idle, MaxHeaderBytes: 16 << 10, ErrorLog: errorLog,
	}
	failed := make(chan error, 2)
	go func() { failed <- front.Serve(proxyListener) }()
	go func() { failed <- back.Serve(adminListener) }()
	g.log.Info("gateway started", "proxy_addr", proxyListener.Addr().String(), "admin_addr", adminListener.Addr().String(),
		"instance", g.router.Instance(), "version", buildVersion())
	if addrFile != "" {
		if err := writeAddresses(addrFile, proxyListener.Addr(), adminListener.Addr()); err != nil {
			return fmt.Errorf("write the addresses: %w", err)
		}
	}

	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			g.router.Tick()
			continue
		case err = <-failed:
			err = fmt.Errorf("serve: %w", err)
		case <-ctx.Done():
		}
		break
	}
	g.stop(front, back, cut)
	return err
}

// stop lets requests finish until the deadline, then cuts them. The admin API answers until the end.
func (g *gateway) stop(front, back *http.Server, cut func()) {
	g.stopping.Store(true)
	g.log.Info("gateway stopping", "deadline", g.settings.Timeouts.Shutdown)
	ctx, cancel := context.WithTimeout(context.Background(), g.settings.Timeouts.Shutdown)
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
