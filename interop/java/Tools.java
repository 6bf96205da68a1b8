import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.utils.internals.Exit;

/** Runs Apache Kafka's tools in this JVM: starting one for each costs a second. */
public final class Tools {
    /** Where System.out leads: tools keep the stream that they saw first, so it never changes, only its target. */
    private static final class Switch extends OutputStream {
        volatile OutputStream target;

        @Override
        public void write(int b) throws java.io.IOException {
            target.write(b);
        }

        @Override
        public void write(byte[] b, int off, int len) throws java.io.IOException {
            target.write(b, off, len);
        }

        @Override
        public void flush() throws java.io.IOException {
            target.flush();
        }
    }

    /** Thrown in place of ending the process, so that a tool closes what it opened. */
    private static final class Ended extends Error {
    }

    /** The running tool's exit status, null until it ends itself. */
    private static volatile Integer exitStatus;

    /** What the running tool wants done when it ends. */
    private static final List<Runnable> HOOKS = new ArrayList<>();

    private static void end(int status) {
        if (exitStatus == null) {
            exitStatus = status;
            // Some tools catch whatever is thrown, print it and end again.
            System.out.flush();
            System.err.flush();
            OUT.target = OutputStream.nullOutputStream();
            ERR.target = OutputStream.nullOutputStream();
        }
        throw new Ended();
    }

    private static final Switch OUT = new Switch();
    private static final Switch ERR = new Switch();

    public static void main(String[] args) throws Exception {
        PrintStream replies = System.out;
        OUT.target = System.err;
        ERR.target = System.err;
        System.setOut(new PrintStream(OUT, true));
        System.setErr(new PrintStream(ERR, true));
        Exit.setExitProcedure((status, message) -> end(status));
        // A producer's last records leave in its hook.
        Exit.setShutdownHookAdder((name, hook) -> HOOKS.add(hook));
        Exit.setHaltProcedure((status, message) -> end(status));
        Driver.serve(replies, Tools::tool);
    }

    /** Runs a tool's main with its input, and returns what it printed and its exit status. */
    private static ObjectNode tool(JsonNode q) throws Exception {
        List<String> args = new ArrayList<>();
        if (q.has("args")) {
            q.get("args").forEach(a -> args.add(a.asText()));
        }
        ByteArrayOutputStream printed = new ByteArrayOutputStream();
        var input = System.in;
        System.setIn(new ByteArrayInputStream(q.path("input").asText("").getBytes(StandardCharsets.UTF_8)));
        OutputStream noise = OUT.target;
        OUT.target = printed;
        ERR.target = printed;
        exitStatus = null;
        int status = 0;
        try {
            Class.forName(q.get("class").asText()).getMethod("main", String[].class).invoke(null, (Object) args.toArray(new String[0]));
        } catch (InvocationTargetException e) {
            if (!(e.getCause() instanceof Ended)) {
                e.getCause().printStackTrace();
                status = 1;
            }
        }
        if (exitStatus != null) {
            status = exitStatus;
        }
        HOOKS.forEach(Runnable::run);
        HOOKS.clear();
        System.out.flush();
        System.err.flush();
        OUT.target = noise;
        ERR.target = noise;
        System.setIn(input);
        return Driver.JSON.createObjectNode().put("output", printed.toString(StandardCharsets.UTF_8)).put("exit", status);
    }
}
