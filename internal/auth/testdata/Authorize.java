import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.MetricName;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.metrics.MetricValueProvider;
import org.apache.kafka.common.metrics.Metrics;
import org.apache.kafka.common.metrics.PluginMetrics;
import org.apache.kafka.common.metrics.Sensor;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.common.security.auth.KafkaPrincipal;
import org.apache.kafka.common.security.auth.SecurityProtocol;
import org.apache.kafka.metadata.authorizer.StandardAcl;
import org.apache.kafka.metadata.authorizer.StandardAuthorizer;
import org.apache.kafka.server.authorizer.Action;
import org.apache.kafka.server.authorizer.AuthorizableRequestContext;
import org.apache.kafka.server.authorizer.AuthorizationResult;

// Authorize asks Kafka's StandardAuthorizer. Each line of its input has words with tabs between them:
//
//   R allowEveryone                                    begins without ACLs
//   A principal host type pattern name operation permission    adds an ACL
//   Q principal host operation type name               asks; the answer is a line with 1 or 0
//   T principal host operation type                    asks for any resource of a type
public class Authorize {
    record Client(KafkaPrincipal principal, InetAddress clientAddress) implements AuthorizableRequestContext {
        public String listenerName() { return "PLAINTEXT"; }
        public SecurityProtocol securityProtocol() { return SecurityProtocol.PLAINTEXT; }
        public int requestType() { return 0; }
        public int requestVersion() { return 0; }
        public String clientId() { return ""; }
        public int correlationId() { return 0; }
    }

    static class NoMetrics implements PluginMetrics {
        final Metrics metrics = new Metrics();
        public MetricName metricName(String name, String description, LinkedHashMap<String, String> tags) { return new MetricName(name, "g", description, tags); }
        public void addMetric(MetricName name, MetricValueProvider<?> provider) { }
        public void removeMetric(MetricName name) { }
        public Sensor addSensor(String name) { return metrics.sensor(name); }
        public void removeSensor(String name) { }
    }

    static Client client(String principal, String host) throws Exception {
        String[] p = principal.split(":", 2);
        return new Client(new KafkaPrincipal(p[0], p[1]), InetAddress.getByName(host));
    }

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        StandardAuthorizer authorizer = null;
        Map<Uuid, StandardAcl> acls = new HashMap<>();
        boolean loaded = false;
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] w = line.split("\t");
            if (w[0].equals("R")) {
                authorizer = new StandardAuthorizer();
                authorizer.configure(Map.of("node.id", "1", "super.users", "User:root", "allow.everyone.if.no.acl.found", w[1]));
                authorizer.withPluginMetrics(new NoMetrics());
                authorizer.completeInitialLoad();
                acls = new HashMap<>();
                loaded = false;
                continue;
            }
            if (w[0].equals("A")) {
                acls.put(Uuid.randomUuid(), new StandardAcl(ResourceType.fromCode(Byte.parseByte(w[3])), w[5], PatternType.fromCode(Byte.parseByte(w[4])), w[1], w[2],
                    AclOperation.fromCode(Byte.parseByte(w[6])), AclPermissionType.fromCode(Byte.parseByte(w[7]))));
                continue;
            }
            if (!loaded) {
                authorizer.loadSnapshot(acls);
                loaded = true;
            }
            AclOperation op = AclOperation.fromCode(Byte.parseByte(w[3]));
            ResourceType type = ResourceType.fromCode(Byte.parseByte(w[4]));
            AuthorizationResult result;
            if (w[0].equals("Q")) {
                result = authorizer.authorize(client(w[1], w[2]), List.of(new Action(op, new ResourcePattern(type, w[5], PatternType.LITERAL), 1, false, false))).get(0);
            } else {
                result = authorizer.authorizeByResourceType(client(w[1], w[2]), op, type);
            }
            System.out.println(result == AuthorizationResult.ALLOWED ? "1" : "0");
        }
    }
}
