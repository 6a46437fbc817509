package javax.annotation;

/** Named by what is generated; in no Java since 11. */
public @interface Generated {
    String[] value();

    String comments() default "";
}
