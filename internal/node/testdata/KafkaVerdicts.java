import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import kafka.server.KafkaConfig;
import org.apache.kafka.common.Endpoint;
import scala.jdk.javaapi.CollectionConverters;

/**
 * Writes a file like kafka-4.3.1-addresses.txt with Apache Kafka's verdicts on its cases: what KafkaConfig makes of each.
 *
 * <p>cd internal/node/testdata && java -cp 'KAFKA/libs/*' KafkaVerdicts.java < kafka-4.3.1-addresses.txt > new.txt
 */
public class KafkaVerdicts {
    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = in.readLine()) != null; ) {
            if (line.startsWith("\tkafka ")) {
                continue;
            }
            System.out.println(line);
            if (!line.isBlank() && !line.startsWith("#") && !line.startsWith("\t")) {
                System.out.println("\tkafka " + judge(readCase(line)));
            }
        }
    }

    /** The properties of a case, with those that Kafka demands of a broker that is no controller. */
    static Map<String, String> readCase(String line) {
        Map<String, String> props = new LinkedHashMap<>();
        props.put("process.roles", "broker");
        props.put("controller.listener.names", "CONTROLLER");
        props.put("controller.quorum.voters", "99@localhost:9999");
        for (String pair : line.equals("-") ? new String[0] : line.split(" ; ")) {
            int at = pair.indexOf('=');
            props.put(pair.substring(0, at), pair.substring(at + 1));
        }
        if (!props.containsKey("broker.id")) {
            props.putIfAbsent("node.id", "1");
        }
        props.computeIfPresent("listener.security.protocol.map", (name, map) -> map.isEmpty() ? map : "CONTROLLER:PLAINTEXT," + map);
        return props;
    }

    static String judge(Map<String, String> props) {
        try {
            KafkaConfig c = new KafkaConfig(props, false);
            return "accepts: listeners " + show(CollectionConverters.asJava(c.listeners()))
                + " advertised " + show(CollectionConverters.asJava(c.effectiveAdvertisedBrokerListeners()))
                + " inter " + c.interBrokerListenerName().value() + " id " + c.nodeId() + " dirs " + String.join(",", c.logDirs());
        } catch (RuntimeException e) {
            return "refuses: " + String.valueOf(e.getMessage()).replace('\n', ' ');
        }
    }

    static String show(List<Endpoint> endpoints) {
        List<String> all = new ArrayList<>();
        for (Endpoint e : endpoints) {
            String host = e.host() == null ? "" : e.host();
            all.add(e.listener() + "://" + (host.contains(":") ? "[" + host + "]" : host) + ":" + e.port());
        }
        return all.isEmpty() ? "none" : String.join(",", all);
    }
}
