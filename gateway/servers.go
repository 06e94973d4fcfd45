package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"github.com/aviary-rollouts/aviary/config"
)

// lookAtCertificates is how often the files of certificates are looked at.
const lookAtCertificates = 2 * time.Second

// frontServer serves users' requests: HTTP/1.1 and HTTP/2, over TLS or without it.
func (g *gateway) frontServer(live context.Context) *http.Server {
	t := g.settings.Timeouts
	// No WriteTimeout and no ReadTimeout: agents stream for minutes, and so may clients. The proxy bounds each read and write.
	s := &http.Server{
		Handler: g.proxy, ReadHeaderTimeout: t.ReadHeader, IdleTimeout: t.Idle, MaxHeaderBytes: g.settings.MaxHeaderBytes,
		ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelWarn), TLSConfig: g.proxyTLS.config(),
		BaseContext: func(net.Listener) context.Context { return live }, Protocols: new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 250,
			SendPingTimeout:      time.Minute, // a client that is gone, or a network, is noticed although nothing is sent
			PingTimeout:          15 * time.Second,
			WriteByteTimeout:     t.ClientWrite,
		},
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(s.TLSConfig != nil)
	s.Protocols.SetUnencryptedHTTP2(s.TLSConfig == nil)
	return s
}

// backServer serves the admin API.
func (g *gateway) backServer() *http.Server {
	t := g.settings.Timeouts
	return &http.Server{
		Handler: g.admin, ReadHeaderTimeout: t.ReadHeader, ReadTimeout: 30 * time.Second, WriteTimeout: time.Minute,
		IdleTimeout: t.Idle, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelWarn), TLSConfig: g.adminTLS.config(),
	}
}

// serve is Serve, over TLS if the server is set up for it.
func serve(s *http.Server, l net.Listener) error {
	if s.TLSConfig != nil {
		return s.ServeTLS(l, "", "")
	}
	return s.Serve(l)
}

// listen opens both listeners, or neither.
func (g *gateway) listen() (front, back net.Listener, err error) {
	if front, err = net.Listen("tcp", g.settings.Listen); err != nil {
		return nil, nil, fmt.Errorf("listen for the proxy: %w", err)
	}
	if back, err = net.Listen("tcp", g.settings.AdminListen); err != nil {
		_ = front.Close()
		return nil, nil, fmt.Errorf("listen for the admin API: %w", err)
	}
	if g.settings.MaxConnections > 0 {
		front = netutil.LimitListener(front, g.settings.MaxConnections)
	}
	return front, back, nil
}

// tell warns of settings that are allowed and seldom wise.
func tell(settings config.Gateway, log *slog.Logger) {
	if settings.StateFile == "" {
		log.Warn("nothing is kept over a restart, promotions included: set state_file")
	}
	if settings.AdminTLS == nil && !loopback(settings.AdminListen) {
		log.Warn("the admin API takes its token in plain HTTP from other machines: set admin_tls, or keep the network closed")
	}
}

func loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || (ip != nil && ip.IsLoopback()))
}
