package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/server/chasm/lib/activity"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/metrics"
	persistence "go.temporal.io/server/common/persistence/sql"
	"go.temporal.io/server/common/persistence/sql/sqlplugin"
	sqliteplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/common/resolver"
	"go.temporal.io/server/schema/sqlite"
	"go.temporal.io/server/temporal"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	clusterName = "active"
	// clusterID tells clusters apart that replicate to each other; this one never does.
	clusterID = "6f0d3c52-9a3e-4f0b-8f5c-2d8b6d6f6a11"
	// loopback is where the parts of the server talk to each other, whatever --host says.
	loopback = "127.0.0.1"
	// storeName is the only data store of the configuration.
	storeName = "sqlite"
	// retention is how long closed workflows are kept.
	retention = 30 * 24 * time.Hour
)

// serverConfig describes a cluster of one process. It picks the ports of the inner services.
func serverConfig(opts options) (*config.Config, error) {
	services := make(map[string]config.Service, len(temporal.DefaultServices))
	for _, name := range temporal.DefaultServices {
		if name == string(primitives.FrontendService) {
			continue
		}
		port, err := freePort(loopback)
		if err != nil {
			return nil, fmt.Errorf("find a free port for the %s service: %w", name, err)
		}
		services[name] = config.Service{RPC: config.RPC{GRPCPort: port, BindOnIP: loopback}}
	}
	httpPort, err := freePort(opts.host)
	if err != nil {
		return nil, fmt.Errorf("find a free port for the frontend's HTTP: %w", err)
	}
	services[string(primitives.FrontendService)] = config.Service{
		RPC: config.RPC{GRPCPort: opts.port, HTTPPort: httpPort, BindOnIP: opts.host},
	}

	frontend := frontendAddress(opts)
	conf := &config.Config{
		Services: services,
		Persistence: config.Persistence{
			DefaultStore:     storeName,
			VisibilityStore:  storeName,
			NumHistoryShards: 1,
			DataStores:       map[string]config.DataStore{storeName: {SQL: sqlConfig(opts)}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10,
			MasterClusterName:        clusterName,
			CurrentClusterName:       clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{clusterName: {
				Enabled:                true,
				InitialFailoverVersion: 1,
				RPCAddress:             frontend,
				HTTPAddress:            net.JoinHostPort(reachable(opts.host), strconv.Itoa(httpPort)),
				ClusterID:              clusterID,
			}},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		PublicClient:        config.PublicClient{HostPort: frontend},
	}
	conf.Global.Membership = config.Membership{MaxJoinDuration: 30 * time.Second, BroadcastAddress: loopback}
	conf.Archival.History.State = config.ArchivalDisabled
	conf.Archival.Visibility.State = config.ArchivalDisabled
	conf.NamespaceDefaults.Archival.History.State = config.ArchivalDisabled
	conf.NamespaceDefaults.Archival.Visibility.State = config.ArchivalDisabled
	return conf, nil
}

func frontendAddress(opts options) string {
	return net.JoinHostPort(reachable(opts.host), strconv.Itoa(opts.port))
}

// sqlConfig says where the state lives. A file gets a write-ahead log, so that a commit costs no seek, and an exclusive
// lock, so that a second server on the same file is refused instead of both corrupting each other's caches.
func sqlConfig(opts options) *config.SQL {
	if opts.dbFile == "" {
		return &config.SQL{
			PluginName:        sqliteplugin.PluginName,
			DatabaseName:      "devstack-" + uuid.NewString(),
			ConnectAttributes: map[string]string{"mode": "memory", "cache": "shared"},
		}
	}
	return &config.SQL{
		PluginName:   sqliteplugin.PluginName,
		DatabaseName: opts.dbFile,
		ConnectAttributes: map[string]string{
			"mode":         "rwc",
			"busy_timeout": "1000",
			"journal_mode": "wal",
			"locking_mode": "exclusive",
			"synchronous":  "normal",
		},
	}
}

// prepareDatabase creates the tables of a new file, and the namespace with its search attributes where it is missing.
func prepareDatabase(opts options, conf *config.Config) error {
	sql := conf.Persistence.DataStores[storeName].SQL
	if opts.dbFile != "" {
		if _, err := os.Stat(opts.dbFile); errors.Is(err, fs.ErrNotExist) {
			if err := createTables(opts.dbFile); err != nil {
				return databaseError(opts, "create the tables", err)
			}
		}
	}
	ns, err := sqlite.NewNamespaceConfig(clusterName, opts.namespace, false, searchAttributes())
	if err != nil {
		return fmt.Errorf("describe namespace %s: %w", opts.namespace, err)
	}
	ns.Detail.Config.Retention = durationpb.New(retention)
	if err := sqlite.CreateNamespaces(sql, ns); err != nil {
		return databaseError(opts, "create namespace "+opts.namespace, err)
	}
	return nil
}

// createTables makes a database in a file beside the wanted one and moves it there when it is whole: a process that dies
// half-way leaves nothing behind that a restart would take for a database. The server's plugin never closes a file, so this
// one is opened without a log of its own and without a lasting lock.
func createTables(file string) error {
	sql := &config.SQL{
		PluginName:        sqliteplugin.PluginName,
		DatabaseName:      file + ".new",
		ConnectAttributes: map[string]string{"mode": "rwc", "journal_mode": "delete"},
	}
	if err := os.Remove(sql.DatabaseName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := sqlite.SetupSchema(sql); err != nil {
		return err
	}
	return os.Rename(sql.DatabaseName, file)
}

// foldLog moves what is in the write-ahead log into the database file itself, so that this one file is the whole state
// between two runs. A server that was killed leaves the log, and the next one reads it.
func foldLog(sql *config.SQL) error {
	db, err := persistence.NewSQLAdminDB(sqlplugin.DbKindUnknown, sql, resolver.NewNoopResolver(), log.NewNoopLogger(), metrics.NoopMetricsHandler)
	if err != nil {
		return fmt.Errorf("open %s to fold its log: %w", sql.DatabaseName, err)
	}
	err = db.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("fold the log of %s: %w", sql.DatabaseName, err)
	}
	return nil
}

// databaseError explains the errors of SQLite that are the user's to mend.
func databaseError(opts options, tried string, err error) error {
	switch {
	case opts.dbFile == "":
		return fmt.Errorf("%s in memory: %w", tried, err)
	case strings.Contains(err.Error(), "database is locked"):
		return fmt.Errorf("--db-filename %s is in use by another process: stop it, or name another file", opts.dbFile)
	case strings.Contains(err.Error(), "not a database"), strings.Contains(err.Error(), "no such table"):
		return fmt.Errorf("--db-filename %s is not a database of a Temporal server: name another file", opts.dbFile)
	default:
		return fmt.Errorf("%s in --db-filename %s: %w", tried, opts.dbFile, err)
	}
}

// serverOptions wires the configuration to a server without TLS, users or gossip.
func serverOptions(opts options, conf *config.Config, logger *slog.Logger) []temporal.ServerOption {
	hosts := make(map[primitives.ServiceName]static.Hosts, len(conf.Services))
	for name, service := range conf.Services {
		addr := net.JoinHostPort(loopback, strconv.Itoa(service.RPC.GRPCPort))
		if name == string(primitives.FrontendService) {
			addr = frontendAddress(opts)
		}
		hosts[primitives.ServiceName(name)] = static.SingleLocalHost(addr)
	}
	return []temporal.ServerOption{
		temporal.WithConfig(conf),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(hosts),
		temporal.WithLogger(serverLogger{out: logger}),
		temporal.WithAuthorizer(authorization.NewNoopAuthorizer()),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return authorization.NewNoopClaimMapper() }),
		temporal.WithDynamicConfigClient(dynamicSettings()),
	}
}

// dynamicSettings are what a server for one developer wants otherwise than a production cluster. Worker deployments,
// updates and the pausing of activities are on by default in this server.
func dynamicSettings() dynamicconfig.StaticClient {
	return dynamicconfig.StaticClient{
		// New search attributes and endpoints are seen at once; reads then go past the caches, so they may be more.
		dynamicconfig.ForceSearchAttributesCacheRefreshOnRead.Key(): true,
		dynamicconfig.ForceNexusEndpointRefreshOnRead.Key():         true,
		dynamicconfig.FrontendPersistenceMaxQPS.Key():               10000,
		dynamicconfig.HistoryPersistenceMaxQPS.Key():                45000,
		// Tests and dashboards list workflows more often than people do.
		dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 200,
		// The default cache is sized for a cluster's worth of workflows.
		dynamicconfig.HistoryCacheHostLevelMaxSize.Key(): 8192,
		// One partition per task queue: with few tasks, more only add hops.
		dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():  1,
		dynamicconfig.MatchingNumTaskqueueWritePartitions.Key(): 1,
		// Operators can pause, reset and change any activity.
		activity.EnableStandaloneActivityOperatorCommands.Key():                  true,
		dynamicconfig.FrontendEnableBatchOperationsForStandaloneActivities.Key(): true,
		// A laptop's server phones nobody.
		dynamicconfig.EnableServerVersionCheck.Key(): false,
	}
}
