import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

import org.apache.kafka.common.metrics.MetricConfig;
import org.apache.kafka.common.metrics.Metrics;
import org.apache.kafka.common.metrics.Quota;
import org.apache.kafka.common.errors.ThrottlingQuotaExceededException;
import org.apache.kafka.common.security.auth.KafkaPrincipal;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.network.Session;
import org.apache.kafka.server.config.ClientQuotaManagerConfig;
import org.apache.kafka.server.quota.ClientQuotaEntity;
import org.apache.kafka.server.quota.ClientQuotaManager;
import org.apache.kafka.server.quota.ControllerMutationQuota;
import org.apache.kafka.server.quota.ControllerMutationQuotaManager;
import org.apache.kafka.server.quota.QuotaType;

/** Reads changes of quotas and uses, and prints for how long Kafka's own managers throttle. */
public class Throttle {
    static long now = 1_000_000_000_000L;

    static class Clock implements Time {
        public long milliseconds() { return now; }
        public long nanoseconds() { return now * 1_000_000; }
        public void sleep(long ms) { }
        public void waitObject(Object o, Supplier<Boolean> done, long deadlineMs) { }
    }

    static Optional<ClientQuotaEntity.ConfigEntity> part(String name, boolean isUser) {
        if (name.isEmpty()) return Optional.empty();
        if (name.equals("*")) return Optional.of(isUser ? ClientQuotaManager.DEFAULT_USER_ENTITY : ClientQuotaManager.DEFAULT_USER_CLIENT_ID);
        return Optional.of(isUser ? new ClientQuotaManager.UserEntity(name) : new ClientQuotaManager.ClientIdEntity(name));
    }

    public static void main(String[] args) throws Exception {
        var time = new Clock();
        ClientQuotaManager[] managers = null;
        var out = new StringBuilder();
        var in = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = in.readLine()) != null; ) {
            var f = line.split("\t", -1);
            if (f[0].equals("N")) { // windows, their seconds
                if (managers != null) for (var m : managers) m.shutdown();
                var cfg = new ClientQuotaManagerConfig(Integer.parseInt(f[1]), Integer.parseInt(f[2]));
                var metrics = new Metrics(new MetricConfig(), List.of(), time);
                managers = new ClientQuotaManager[] {
                    new ClientQuotaManager(cfg, metrics, QuotaType.PRODUCE, time, ""),
                    new ClientQuotaManager(cfg, metrics, QuotaType.FETCH, time, ""),
                    new kafka.server.ClientRequestQuotaManager(cfg, metrics, time, "", Optional.empty()),
                    new ControllerMutationQuotaManager(cfg, metrics, time, "", Optional.empty()),
                };
                continue;
            }
            if (f[0].equals("T")) { // ms that pass
                now += Long.parseLong(f[1]);
                continue;
            }
            var m = managers[Integer.parseInt(f[1])];
            if (f[0].equals("S")) { // kind, user, client id, limit
                double limit = Double.parseDouble(f[4]);
                m.updateQuota(part(f[2], true), part(f[3], false), limit == 0 ? Optional.empty() : Optional.of(new Quota(limit, true)));
                continue;
            }
            var session = new Session(new KafkaPrincipal("User", f[2]), InetAddress.getLoopbackAddress());
            double value = Double.parseDouble(f[4]);
            switch (f[0]) { // kind, user, client id, value
                case "U" -> out.append(m.maybeRecordAndGetThrottleTimeMs(session, f[3], value, now)).append('\n');
                case "B" -> { if (m.quotasEnabled()) m.unrecordQuotaSensor(session, f[3], value, now); }
                case "F" -> out.append((int) m.maxValueInQuotaWindow(session, f[3])).append('\n');
                default -> {
                    var manager = (ControllerMutationQuotaManager) m;
                    ControllerMutationQuota q = f[0].equals("M") ? manager.newStrictQuotaFor(session, f[3]) : manager.newPermissiveQuotaFor(session, f[3]);
                    try {
                        q.record(value);
                    } catch (ThrottlingQuotaExceededException e) {
                        // the throttle time says so
                    }
                    out.append(q.throttleTime()).append('\n');
                }
            }
        }
        System.out.print(out);
        System.exit(0);
    }
}
