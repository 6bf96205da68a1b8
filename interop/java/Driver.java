import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Future;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Drives kafka-clients, the newest and a former version: it uses only what both have. */
public final class Driver {
    static final ObjectMapper JSON = new ObjectMapper();
    private static KafkaConsumer<byte[], byte[]> member;
    private static KafkaProducer<byte[], byte[]> transactional;
    private static final Map<TopicPartition, OffsetAndMetadata> given = new HashMap<>();

    /** Answers a request. */
    interface Op {
        ObjectNode answer(JsonNode q) throws Exception;
    }

    public static void main(String[] args) throws Exception {
        PrintStream replies = System.out;
        System.setOut(System.err); // what the library prints is no reply
        serve(replies, Driver::answer);
    }

    /** Answers requests until input ends. */
    static void serve(PrintStream replies, Op op) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            ObjectNode reply;
            try {
                reply = op.answer(JSON.readTree(line));
                reply.put("ok", true);
            } catch (Exception e) {
                Throwable cause = e;
                while (cause.getCause() != null && Errors.forException(cause) == Errors.UNKNOWN_SERVER_ERROR) {
                    cause = cause.getCause();
                }
                reply = JSON.createObjectNode().put("ok", false).put("error", cause.toString()).put("code", Errors.forException(cause).code());
            }
            replies.println("@leat " + JSON.writeValueAsString(reply));
            replies.flush();
        }
        Runtime.getRuntime().halt(0); // a member must not leave its group politely, nor tools' hooks run
    }

    private static ObjectNode answer(JsonNode q) throws Exception {
        switch (q.get("op").asText()) {
            case "create": return create(q);
            case "describe": return describe(q);
            case "produce": return produce(q);
            case "flow": return flow(q);
            case "consume": return consume(q);
            case "time": return time(q);
            case "join": return join(q);
            case "poll": return poll(q);
            case "commit": return commit(q);
            case "txn_open": return openTxn(q);
            case "txn_begin": return inTxn(transactional::beginTransaction);
            case "txn_send": return sendInTxn(q);
            case "txn_offsets": return inTxn(() -> transactional.sendOffsetsToTransaction(given, member.groupMetadata()));
            case "txn_commit": return inTxn(transactional::commitTransaction);
            case "txn_abort": return inTxn(transactional::abortTransaction);
            default: throw new IllegalArgumentException("this driver has no " + q.get("op"));
        }
    }

    private static Map<String, Object> config(JsonNode q, Object... more) throws java.io.IOException {
        Map<String, Object> c = new HashMap<>();
        c.put("bootstrap.servers", q.get("addr").asText());
        if (q.has("login")) {
            reach(q.get("login"), c);
        }
        for (int i = 0; i < more.length; i += 2) {
            c.put((String) more[i], more[i + 1]);
        }
        return c;
    }

    /** Sets how the library reaches a listener with TLS, and who it is. */
    private static void reach(JsonNode login, Map<String, Object> c) throws java.io.IOException {
        String mechanism = login.path("mechanism").asText("");
        c.put("security.protocol", mechanism.isEmpty() ? "SSL" : "SASL_SSL");
        c.put("ssl.truststore.type", "PEM");
        c.put("ssl.truststore.location", login.get("ca").asText());
        if (login.has("certificate")) {
            c.put("ssl.keystore.type", "PEM");
            // As a file it needs a password with the former version, also for a key that is not encrypted.
            String pem = Files.readString(Path.of(login.get("certificate").asText()));
            c.put("ssl.keystore.key", pem.substring(0, pem.indexOf("-----BEGIN CERTIFICATE-----")));
            c.put("ssl.keystore.certificate.chain", pem.substring(pem.indexOf("-----BEGIN CERTIFICATE-----")));
        }
        if (mechanism.isEmpty()) {
            return;
        }
        c.put("sasl.mechanism", mechanism);
        String options = String.format(" required username=\"%s\" password=\"%s\";", login.path("user").asText(), login.path("password").asText());
        switch (mechanism) {
            case "PLAIN":
                c.put("sasl.jaas.config", "org.apache.kafka.common.security.plain.PlainLoginModule" + options);
                break;
            case "OAUTHBEARER":
                String token = Path.of(login.get("token").asText()).toUri().toString();
                System.setProperty("org.apache.kafka.sasl.oauthbearer.allowed.urls", token); // it reads tokens from no other place
                c.put("sasl.jaas.config", "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;");
                c.put("sasl.login.callback.handler.class", "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler");
                c.put("sasl.oauthbearer.token.endpoint.url", token);
                break;
            default:
                c.put("sasl.jaas.config", "org.apache.kafka.common.security.scram.ScramLoginModule" + options);
        }
    }

    private static ObjectNode create(JsonNode q) throws Exception {
        Map<String, String> configs = new HashMap<>();
        if (q.has("configs")) {
            q.get("configs").fields().forEachRemaining(f -> configs.put(f.getKey(), f.getValue().asText()));
        }
        Optional<Short> replication = q.has("replication") ? Optional.of((short) q.get("replication").asInt()) : Optional.empty();
        Optional<Integer> partitions = q.has("partitions") ? Optional.of(q.get("partitions").asInt()) : Optional.empty();
        try (Admin admin = Admin.create(config(q))) {
            NewTopic topic = new NewTopic(q.get("topic").asText(), partitions, replication).configs(configs);
            admin.createTopics(List.of(topic)).all().get();
        }
        return JSON.createObjectNode();
    }

    private static ObjectNode describe(JsonNode q) throws Exception {
        String topic = q.get("topic").asText();
        try (Admin admin = Admin.create(config(q))) {
            TopicDescription d = describeTopic(admin, topic);
            long leaders = d.partitions().stream().filter(p -> p.leader() != null).count();
            return JSON.createObjectNode().put("partitions", d.partitions().size()).put("leaders", leaders);
        }
    }

    /** Describes a topic by the method that this version of the library has. */
    private static TopicDescription describeTopic(Admin admin, String topic) throws Exception {
        Object all = admin.describeTopics(List.of(topic));
        String names = Stream.of(all.getClass().getMethods()).map(Method::getName).anyMatch("allTopicNames"::equals) ? "allTopicNames" : "all";
        KafkaFuture<?> described = (KafkaFuture<?>) all.getClass().getMethod(names).invoke(all);
        return (TopicDescription) ((Map<?, ?>) described.get()).get(topic);
    }

    private static ObjectNode produce(JsonNode q) throws Exception {
        Map<String, Object> c = config(q, "acks", q.get("acks").asText(), "enable.idempotence", q.get("idempotent").asBoolean(),
            "compression.type", q.get("codec").asText(), "key.serializer", ByteArraySerializer.class, "value.serializer", ByteArraySerializer.class,
            "linger.ms", 20, "max.block.ms", q.has("login") ? 30000 : 5000, "delivery.timeout.ms", 60000);
        ArrayNode offsets = JSON.createArrayNode();
        double throttled;
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(c);
             BufferedReader lines = Files.newBufferedReader(Path.of(q.get("file").asText()))) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                JsonNode r = JSON.readTree(line);
                Long ts = r.has("ts") ? r.get("ts").asLong() : null;
                var record = new ProducerRecord<>(q.get("topic").asText(), q.get("partition").asInt(), ts, bytes(r.get("k")), bytes(r.get("v")));
                if (r.hasNonNull("h")) {
                    for (JsonNode h : r.get("h")) {
                        record.headers().add(h.get("n").asText(), bytes(h.get("v")));
                    }
                }
                sent.add(producer.send(record));
            }
            for (Future<RecordMetadata> f : sent) {
                offsets.add(f.get().offset());
            }
            throttled = producer.metrics().entrySet().stream().filter(m -> m.getKey().name().equals("produce-throttle-time-max"))
                .mapToDouble(m -> (Double) m.getValue().metricValue()).filter(ms -> ms > 0).max().orElse(0);
        }
        ObjectNode reply = JSON.createObjectNode().put("throttle_ms", (int) throttled);
        reply.set("offsets", offsets);
        return reply;
    }

    /** Sends records one after the other for a while, by one client. */
    private static ObjectNode flow(JsonNode q) throws Exception {
        Map<String, Object> c = config(q, "acks", "all", "key.serializer", ByteArraySerializer.class, "value.serializer", ByteArraySerializer.class);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(c)) {
            long until = Long.MAX_VALUE;
            while (System.nanoTime() < until) {
                byte[] value = Integer.toString(sent.size()).getBytes(StandardCharsets.UTF_8);
                sent.add(producer.send(new ProducerRecord<>(q.get("topic").asText(), q.get("partition").asInt(), null, value)));
                if (sent.size() == 1) { // the time begins when it is connected
                    sent.get(0).get();
                    until = System.nanoTime() + q.get("wait_ms").asLong() * 1_000_000;
                }
                Thread.sleep(2);
            }
            for (Future<RecordMetadata> f : sent) {
                f.get();
            }
        }
        return JSON.createObjectNode().put("count", sent.size());
    }

    private static ObjectNode consume(JsonNode q) throws Exception {
        TopicPartition tp = new TopicPartition(q.get("topic").asText(), q.get("partition").asInt());
        int want = q.get("count").asInt();
        int got = 0;
        long until = System.nanoTime() + q.get("wait_ms").asLong() * 1_000_000;
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(q); BufferedWriter out = Files.newBufferedWriter(Path.of(q.get("file").asText()))) {
            consumer.assign(List.of(tp));
            consumer.seek(tp, q.get("offset").asLong());
            while (got < want && System.nanoTime() < until) {
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(200))) {
                    ObjectNode line = JSON.createObjectNode().put("o", r.offset()).put("ts", r.timestamp());
                    line.put("k", r.key()).put("v", r.value());
                    ArrayNode headers = line.putArray("h");
                    for (Header h : r.headers()) {
                        headers.addObject().put("n", h.key()).put("v", h.value());
                    }
                    out.write(JSON.writeValueAsString(line));
                    out.newLine();
                    got++;
                }
            }
        }
        return JSON.createObjectNode().put("count", got);
    }

    private static ObjectNode time(JsonNode q) throws Exception {
        TopicPartition tp = new TopicPartition(q.get("topic").asText(), q.get("partition").asInt());
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(q)) {
            OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(tp, q.get("ts").asLong())).get(tp);
            return JSON.createObjectNode().put("offset", found == null ? -1 : found.offset());
        }
    }

    private static KafkaConsumer<byte[], byte[]> consumer(JsonNode q, Object... more) throws java.io.IOException {
        Map<String, Object> c = config(q, more);
        c.put("key.deserializer", ByteArrayDeserializer.class);
        c.put("value.deserializer", ByteArrayDeserializer.class);
        c.put("enable.auto.commit", false);
        c.put("auto.offset.reset", "earliest");
        c.put("allow.auto.create.topics", false);
        c.put("isolation.level", q.path("committed").asBoolean() ? "read_committed" : "read_uncommitted");
        return new KafkaConsumer<>(c);
    }

    private static ObjectNode join(JsonNode q) throws Exception {
        member = consumer(q, "group.id", q.get("group").asText(), "session.timeout.ms", q.get("session_ms").asInt(), "heartbeat.interval.ms", 500);
        member.subscribe(List.of(q.get("topic").asText()));
        return JSON.createObjectNode();
    }

    private static ObjectNode poll(JsonNode q) {
        ObjectNode reply = JSON.createObjectNode();
        ArrayNode records = reply.putArray("records");
        for (ConsumerRecord<byte[], byte[]> r : member.poll(Duration.ofMillis(q.get("wait_ms").asLong()))) {
            records.addObject().put("p", r.partition()).put("o", r.offset()).put("v", new String(r.value(), StandardCharsets.UTF_8));
            given.put(new TopicPartition(r.topic(), r.partition()), new OffsetAndMetadata(r.offset() + 1));
        }
        return reply;
    }

    private static ObjectNode commit(JsonNode q) {
        TopicPartition tp = new TopicPartition(q.get("topic").asText(), q.get("partition").asInt());
        OffsetAndMetadata next = given.get(tp);
        member.commitSync(Map.of(tp, next));
        return JSON.createObjectNode().put("offset", next.offset());
    }

    private static ObjectNode openTxn(JsonNode q) throws Exception {
        if (transactional != null) {
            transactional.close(Duration.ZERO);
        }
        transactional = new KafkaProducer<>(config(q, "transactional.id", q.get("txn").asText(), "transaction.timeout.ms", q.get("txn_ms").asInt(),
            "key.serializer", ByteArraySerializer.class, "value.serializer", ByteArraySerializer.class));
        return inTxn(transactional::initTransactions);
    }

    private static ObjectNode inTxn(Runnable step) {
        step.run();
        return JSON.createObjectNode();
    }

    private static ObjectNode sendInTxn(JsonNode q) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (JsonNode v : q.get("values")) {
            sent.add(transactional.send(new ProducerRecord<>(q.get("topic").asText(), q.get("partition").asInt(), null, v.asText().getBytes(StandardCharsets.UTF_8))));
        }
        for (Future<RecordMetadata> f : sent) {
            f.get();
        }
        return JSON.createObjectNode();
    }

    private static byte[] bytes(JsonNode n) throws java.io.IOException {
        return n == null || n.isNull() ? null : n.binaryValue();
    }
}
