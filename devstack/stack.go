package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	uioptions "github.com/temporalio/ui-server/v2/server/server_options"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/temporal"
)

// startTimeout bounds the time from the start of the server to its first right answer.
const startTimeout = 60 * time.Second

// stack is a running server with its UI.
type stack struct {
	addrs  addresses
	server temporal.Server
	ui     *uiserver.Server // nil without UI
	sql    *config.SQL
	logger *slog.Logger
}

// startStack starts everything and returns once it answers: the namespace is there with its search attributes, and the UI
// serves. The options must be resolved.
func startStack(ctx context.Context, opts options, logger *slog.Logger) (*stack, error) {
	conf, err := serverConfig(opts)
	if err != nil {
		return nil, err
	}
	if err := prepareDatabase(opts, conf); err != nil {
		return nil, err
	}
	server, err := temporal.NewServer(serverOptions(opts, conf, logger)...)
	if err != nil {
		return nil, fmt.Errorf("build the Temporal server: %w", err)
	}
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("start the Temporal server: %w", errors.Join(err, server.Stop()))
	}
	host := reachable(opts.host)
	s := &stack{
		addrs:  addresses{Frontend: net.JoinHostPort(host, strconv.Itoa(opts.port))},
		server: server,
		sql:    conf.Persistence.DataStores[storeName].SQL,
		logger: logger,
	}
	if opts.uiPort != uiOff {
		s.addrs.UI = "http://" + net.JoinHostPort(host, strconv.Itoa(opts.uiPort))
		s.ui = startUI(opts, s.addrs.Frontend)
	}
	if err := s.awaitReady(ctx, opts.namespace); err != nil {
		s.stop(stopTimeout)
		return nil, err
	}
	return s, nil
}

// startUI serves the web UI in the background. Its server ends the process when it cannot listen; the port was free a
// moment ago.
func startUI(opts options, frontend string) *uiserver.Server {
	host := opts.host
	if net.ParseIP(host).To4() == nil {
		host = "[" + host + "]"
	}
	ui := uiserver.NewServer(uioptions.WithConfigProvider(&uiconfig.Config{
		Host:                host,
		Port:                opts.uiPort,
		TemporalGRPCAddress: frontend,
		EnableUI:            true,
		DefaultNamespace:    opts.namespace,
		DisableNewsFetch:    true,
		CORS:                uiconfig.CORS{CookieInsecure: true}, // plain HTTP on this machine
		HideLogs:            true,
	}))
	go func() { _ = ui.Start() }()
	return ui
}

// awaitReady polls until the frontend knows the namespace, its search attributes are registered and the UI answers.
func (s *stack) awaitReady(ctx context.Context, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c, err := client.NewLazyClient(client.Options{
		HostPort:  s.addrs.Frontend,
		Namespace: namespace,
		Logger:    sdklog.NewStructuredLogger(s.logger),
	})
	if err != nil {
		return fmt.Errorf("make a client for %s: %w", s.addrs.Frontend, err)
	}
	defer c.Close()
	if err := poll(ctx, func() error { return namespaceReady(ctx, c, namespace) }); err != nil {
		return fmt.Errorf("wait for the Temporal server on %s: %w", s.addrs.Frontend, err)
	}
	if err := registerAttributes(ctx, c, namespace); err != nil {
		return err
	}
	if s.ui == nil {
		return nil
	}
	if err := poll(ctx, func() error { return httpOK(ctx, s.addrs.UI) }); err != nil {
		return fmt.Errorf("wait for the UI on %s: %w", s.addrs.UI, err)
	}
	return nil
}

// stop ends the UI and then the server, and gives up waiting after the timeout.
func (s *stack) stop(timeout time.Duration) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s.ui != nil {
			s.ui.Stop()
		}
		_ = s.server.Stop() // it returns nothing: its parts log what goes wrong
		if s.sql.ConnectAttributes["journal_mode"] == "wal" {
			if err := foldLog(s.sql); err != nil {
				s.logger.Error("database not folded", "error", err)
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(timeout):
	}
}

// poll calls try every 20 ms until it succeeds. It returns the last error once ctx is done.
func poll(ctx context.Context, try func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

func httpOK(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return nil
}
